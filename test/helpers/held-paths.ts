import { basename } from 'node:path'
import { onTestFinished } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { NixCommand } from '../../src/nix/command.ts'
import type { Registration } from '../../src/store/image-row.ts'
import type { TaskContext } from '../../src/tasks/context.ts'
import { quarantineParcels } from '../../src/tasks/quarantine-parcels.ts'
import { receivePacked } from '../../src/tasks/receive-packed.ts'
import { settleAll } from '../../src/tasks/settle.ts'
import { makeImage, type TestImage } from './fake-fleet.ts'
import { someStorePath } from './images.ts'
import { regular } from './nar-bytes.ts'
import { throwAwayStore, type ThrowAwayStore } from './nix-store.ts'

/** What Nix is asked over its worker protocol, by number. */
const OPERATIONS = new Map([[11, 'keep'], [12, 'root'], [26, 'info'], [31, 'valid'], [37, 'sign'], [39, 'add']])

/** A real Nix store of one test, which takes what nobody has signed, and what was asked of it. */
export class WatchedNix {
  readonly store: ThrowAwayStore
  readonly nix: TaskContext['nix']
  /** Each request, with the store path that it begins with where it has one. */
  readonly asked: string[] = []
  connections = 0
  /** Called before each request is sent. */
  before: (request: string) => void = () => undefined

  constructor() {
    this.store = throwAwayStore()
    onTestFinished(() => { this.store.remove() })
    const command = new NixCommand({ logger: silentLogger }, { env: { ...this.store.env, NIX_CONFIG: `${this.store.env['NIX_CONFIG'] ?? ''}\nrequire-sigs = false` } })
    this.nix = {
      storeDir: command.storeDir, probe: command.probe.bind(command), pathInfo: command.pathInfo.bind(command), canWriteStore: command.canWriteStore.bind(command),
      addPath: command.addPath.bind(command), hasRoot: command.hasRoot.bind(command), closureInfo: command.closureInfo.bind(command), verify: command.verify.bind(command),
      startStoreDaemon: async options => {
        this.connections++
        const daemon = await command.startStoreDaemon(options)
        return { ...daemon, write: (...parts) => { this.#note(parts[0]); return daemon.write(...parts) } }
      },
    }
  }

  isValid(path: string): boolean {
    try {
      this.store.run('nix-store', '--check-validity', path)
      return true
    } catch {
      return false
    }
  }

  #note(bytes: Uint8Array | undefined): void {
    const request = Buffer.from(bytes ?? [])
    const operation = request.length < 16 ? undefined : OPERATIONS.get(Number(request.readBigUInt64LE(0)))
    if (operation === undefined) return
    const length = Number(request.readBigUInt64LE(8))
    const said = operation === 'valid' ? operation : `${operation} ${basename(request.toString('utf8', 16, 16 + length)).replace(/^.*-image-/, '')}`
    this.before(said)
    this.asked.push(said)
  }
}

export interface HeldPath {
  readonly image: TestImage
  readonly path: string
}

/** An image that was fetched, verified, and is known at a store path named after `name`; `references` are names as well. */
export async function hold(context: TaskContext, name: string, { references = [], contents = name, ...said }: Partial<Registration> & { contents?: string } = {}): Promise<HeldPath> {
  const image = await makeImage(regular(contents))
  const { storeDir } = context.nix
  const registration: Registration = { deriver: null, ca: null, signatures: [], vouchedBy: 'signatures', ...said, storePath: someStorePath(name, storeDir), references: references.map(one => one.startsWith('/') ? one : someStorePath(one, storeDir)) }
  if (context.catalog.get(image.narHash) === undefined) {
    await receivePacked(context, {
      metadata: { ...image.metadata, ...registration }, nar: Uint8Array.from(image.nar), peerId: 'peer', signal: new AbortController().signal,
      quarantine: async parcel => (await quarantineParcels(context, [parcel]))[0] ?? Promise.reject(new Error('it was not quarantined')),
      pass: async proven => (await settleAll(context, [proven]))[0] ?? Promise.reject(new Error('it was not verified')),
    })
  }
  context.catalog.addStorePath(image.narHash, registration)
  return { image, path: registration.storePath }
}
