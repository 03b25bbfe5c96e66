import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync, closeSync } from 'node:fs'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { ControlClient } from '../src/control/client.ts'
import { removeTree } from '../src/nar/remove.ts'
import { printedBy } from './printed.ts'
import { type Usage, usageOf } from './usage.ts'

const NARVIK = new URL('../bin/narvik', import.meta.url).pathname
const ready = z.object({ peerId: z.string(), addresses: z.array(z.string()), socket: z.string() })

export interface HostOptions {
  readonly bootstrap?: readonly Host[]
  readonly env?: Readonly<Record<string, string>>
  /** The directory of everything that the daemon keeps: a new one, or that of an earlier daemon to go on with what it had. */
  readonly dir?: string
  /** Further arguments of `narvik daemon`. */
  readonly args?: readonly string[]
  /** The words of a command that becomes the daemon somewhere else, such as in a network namespace: the process must stay the same. */
  readonly via?: readonly string[]
  /** File that its log is added to; without one it goes to standard error. */
  readonly logFile?: string
}

/** A real daemon, on loopback unless told otherwise, started as its users start it, with everything it keeps in one temporary directory. */
export class Host {
  readonly dir: string
  readonly dataDir: string
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly client: ControlClient
  readonly #process: ChildProcess

  private constructor(process: ChildProcess, dir: string, { peerId, addresses, socket }: z.infer<typeof ready>) {
    this.#process = process
    this.dir = dir
    this.dataDir = dataDirIn(dir)
    this.peerId = peerId
    this.addresses = addresses
    this.client = new ControlClient({ socket })
  }

  static async start(options: HostOptions = {}): Promise<Host> {
    const dir = options.dir ?? await mkdtemp(join(tmpdir(), 'narvik-bench-host-'))
    await mkdir(dir, { recursive: true })
    const child = spawnDaemon(dir, options)
    for await (const line of printedBy(child)) {
      const said = ready.safeParse(JSON.parse(line))
      if (said.success) return new Host(child, dir, said.data)
      throw new Error(`Cannot start a daemon: it says ${line}`)
    }
    throw new Error(`Cannot start a daemon: found its end, needed the line that says it is ready${options.logFile === undefined ? '' : `; its log is ${options.logFile}`}`)
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  /** Resolves when `count` peers are connected. */
  async untilPeers(count: number): Promise<void> {
    while ((await this.client.status()).peers < count) await new Promise(resolve => setTimeout(resolve, 20))
  }

  usage(): Promise<Usage> {
    return usageOf(this.pid)
  }

  /** Sends a signal that ends the daemon, and resolves when it has; what it kept stays. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const ended = once(this.#process, 'exit')
    this.#process.kill(signal)
    // One that was frozen hears it when it goes on.
    this.#process.kill('SIGCONT')
    await ended
  }

  /** Stops the process on the spot, with all its connections open, until it is killed. */
  freeze(): void {
    this.#process.kill('SIGSTOP')
  }

  /** Ends the daemon and removes what it kept. */
  async stop(): Promise<void> {
    await this.kill('SIGTERM')
    await removeTree(this.dir)
  }
}

/** Where the daemon that was started with a directory has its data. */
export function dataDirIn(dir: string): string {
  return join(dir, 'data')
}

/** Two daemons that are connected. */
export async function startPair(options: HostOptions = {}): Promise<[Host, Host]> {
  const provider = await Host.start(options)
  const receiver = await Host.start({ ...options, bootstrap: [provider] })
  await Promise.all([provider.untilPeers(1), receiver.untilPeers(1)])
  return [provider, receiver]
}

function spawnDaemon(dir: string, { bootstrap = [], env = {}, args = [], via = [], logFile }: HostOptions): ChildProcess {
  const peers = bootstrap.flatMap(({ addresses }) => addresses.flatMap(address => ['--bootstrap', address]))
  const [program = NARVIK, ...words] = [
    ...via, NARVIK, 'daemon', '--json', '--no-mdns', '--data-dir', dataDirIn(dir), '--socket', join(dir, 'run', 'narvik.sock'), ...peers, ...args,
  ]
  const log = logFile === undefined ? undefined : openSync(logFile, 'a')
  try {
    return spawn(program, words, {
      env: { ...process.env, NARVIK_CONFIG: '/dev/null', NARVIK_LOG_LEVEL: 'warn', NARVIK_NIX_STORE_ADD_MAX_BYTES: '0', ...env },
      stdio: ['ignore', 'pipe', log ?? 'inherit'],
    })
  } finally {
    if (log !== undefined) closeSync(log)
  }
}
