import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from './config.ts'
import type { Tasks } from './control/api.ts'
import { createControlServer } from './control/server.ts'
import { fromSystemError, messageOf, NarvikError } from './errors.ts'
import { createLogger, type Logger } from './log.ts'
import { NixCommand } from './nix/command.ts'
import { parsePublicKey } from './nix/signature.ts'
import { notifySystemd } from './notify.ts'
import { FLEET_KEY_BYTES } from './p2p/fleet.ts'
import { loadIdentity } from './p2p/identity.ts'
import { createNode, type P2pNode } from './p2p/node.ts'
import { Catalog } from './store/catalog.ts'
import { Content } from './store/content.ts'
import type { ImageRow } from './store/image-row.ts'
import { reconcile } from './store/reconcile.ts'
import { Announcer } from './tasks/announce.ts'
import { checkForChanges, checkRegistrations } from './tasks/check-places.ts'
import { alignRoots } from './tasks/gc-roots.ts'
import { createTasks } from './tasks/all.ts'
import type { TaskContext } from './tasks/context.ts'
import { Jobs } from './tasks/jobs.ts'
import { PathInfos } from './tasks/path-infos.ts'
import { resumeWork } from './tasks/resume.ts'
import { Collector } from './tasks/space/collector.ts'
import { Space, type SpaceSettings } from './tasks/space/space.ts'
import { Uses } from './tasks/space/uses.ts'
import { createClosureSource, createImageSource } from './tasks/serve.ts'
import { reviewTrust } from './tasks/trust.ts'
import { handleDamage } from './tasks/verify-image.ts'

/** What a person is told once the daemon can be used. */
export interface ReadyInfo {
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly socket: string
  readonly dataDir: string
}

export interface DaemonHooks {
  readonly onReady: (info: ReadyInfo) => void
}

/** Bytes per second below which a provider is left for another one. */
const SLOW_BYTES_PER_SECOND = 32 * 1024
/** Milliseconds for which a peer that was proven to lie is banned. */
const BAN_MS = 60 * 60 * 1000

/**
 * Runs a node until it is asked to end, and answers with the exit code. This is where every part is made and joined to
 * the others; what was started last is stopped first.
 */
export async function runDaemon(config: Config, { onReady }: DaemonHooks): Promise<number> {
  const logger = createLogger(config.log)
  const ended = untilSignal(logger)
  await using stack = new AsyncDisposableStack()

  const content = await Content.open(config.dataDir)
  stack.defer(() => { content.close() })
  const catalog = Catalog.open(join(config.dataDir, 'catalog.db'))
  stack.defer(() => { catalog.close() })
  await reconcile(catalog, content, { logger })

  const nix = new NixCommand({ logger }, { queryTimeoutMs: config.nix.queryTimeoutSeconds * 1000, ...(config.nix.binDir !== null && { binDir: config.nix.binDir }) })
  const damage: { handle: (row: ImageRow, reason: string) => void } = { handle: () => undefined }
  const uses = new Uses({ catalog, logger })
  const source = createImageSource({ catalog, content, uses, logger, onDamage: (row, reason) => { damage.handle(row, reason) } })
  const node = await makeNode(config, { source, closures: createClosureSource({ catalog, uses, logger }), logger })

  const jobs = new Jobs()
  const announcer = new Announcer({ router: node.router, logger })
  const collector = new Collector({ catalog, content, node, jobs, announcer, uses, logger })
  const space = new Space({ catalog, content, collector, logger }, spaceSettingsOf(config))
  const context: TaskContext = { catalog, content, node, uses, space, nix, pathInfos: new PathInfos({ nix, known: catalog.knownPaths, logger }), jobs, announcer, logger, settings: settingsOf(config) }
  damage.handle = (row, reason) => { handleDamage(context, row, reason) }
  const tasks: Tasks = createTasks(context, { version: await readVersion(), startedAt: new Date(), dataDir: config.dataDir, socket: config.socket, fleet: config.fleetKeyFile !== null })

  await reviewTrust(context)

  uses.start()
  stack.defer(() => { uses.stop() })
  await node.start()
  stack.defer(() => node.stop())
  stack.defer(() => announcer.stop())
  await checkForChanges(context)
  const stopResuming = resumeWork(context)
  stack.defer(() => jobs.stop())
  stack.defer(stopResuming)
  const server = createControlServer({ tasks, logger }, { socket: config.socket })
  await server.start()
  stack.defer(() => server.stop())
  announcer.announceAll(catalog)
  // Nix may take its time, and nobody need wait for it.
  const ending = new AbortController()
  const looking = Promise.all([alignRoots(context, ending.signal), checkRegistrations(context, ending.signal)])
  stack.defer(async () => {
    ending.abort()
    await looking
  })

  await notifySystemd('ready')
  logger.info('ready', { peerId: node.peerId, socket: config.socket })
  onReady({ peerId: node.peerId, addresses: node.addresses, socket: config.socket, dataDir: config.dataDir })

  const signal = await ended
  logger.info('stopping', { signal })
  // Systemd knows that it has asked; that it can't be told so is no reason to leave in disorder.
  await notifySystemd('stopping').catch((error: unknown) => { logger.warn(messageOf(error)) })
  return 0
}

async function makeNode(config: Config, parts: Pick<Parameters<typeof createNode>[0], 'source' | 'closures' | 'logger'>): Promise<P2pNode> {
  const fleetKey = config.fleetKeyFile === null ? undefined : await readFleetKey(config.fleetKeyFile)
  return createNode(parts, {
    identity: await loadIdentity(join(config.dataDir, 'identity.key')),
    listen: config.listen,
    bootstrap: config.bootstrap,
    mdns: config.mdns,
    stallMs: config.fetch.stallSeconds * 1000,
    allowOpen: config.allowOpen,
    ...(fleetKey !== undefined && { fleetKey }),
  })
}

/** The fleet key is 32 random bytes: as they are, or as 64 hex characters. */
async function readFleetKey(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file).catch((error: unknown) => { throw fromSystemError(error, `read the fleet key ${file}`) })
  if (bytes.length === FLEET_KEY_BYTES) return bytes
  const text = bytes.toString('latin1').trim()
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex')
  throw new NarvikError('invalid-config', `Cannot use the fleet key ${file}: found ${bytes.length} bytes, needed ${FLEET_KEY_BYTES}, or ${2 * FLEET_KEY_BYTES} hex characters`, {
    hint: `Make one with: head -c ${FLEET_KEY_BYTES} /dev/urandom > ${file}`,
  })
}

function settingsOf({ nix, fetch, trust }: Config): TaskContext['settings'] {
  return {
    trust: {
      keys: trust.keys.map(text => parsePublicKey(text)),
      needed: { 'nar-hash': trust.signaturesByHash, 'store-path': trust.signaturesByStorePath, 'name': trust.signaturesByName },
    },
    useNix: nix.enabled,
    storeAddMaxBytes: nix.storeAddMaxBytes,
    providerWaitMs: fetch.providerWaitSeconds * 1000,
    stallMs: fetch.stallSeconds * 1000,
    slowBytesPerSecond: SLOW_BYTES_PER_SECOND,
    banMs: BAN_MS,
  }
}

function spaceSettingsOf({ space }: Config): SpaceSettings {
  return { quotaBytes: space.quota, minFreeBytes: space.minFree, minCopies: space.minCopies }
}

/** Resolves with the name of the signal that asks the daemon to end; a second one ends it at once. */
function untilSignal(logger: Logger): Promise<string> {
  return new Promise(resolve => {
    let asked = false
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => {
        if (asked) {
          logger.warn('ending at once', { signal: name })
          process.exit(1)
        }
        asked = true
        resolve(name)
      })
    }
  })
}

async function readVersion(): Promise<string> {
  const text = await readFile(new URL('../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version?: unknown }
  if (typeof version !== 'string') throw new NarvikError('internal', `Cannot read the version: ${messageOf(text)}`)
  return version
}
