import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, onTestFinished } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { removeTree } from '../../src/nar/remove.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const NARVIK = join(ROOT, 'bin/narvik')
/** What is to be cleared up after the tests of this file, the last first. */
const leftovers: (() => Promise<void>)[] = []
afterAll(async () => { for (const clearUp of leftovers.reverse()) await clearUp() })

/** Has something cleared up when the test is over, or, for what is shared by the tests of a file, when they all are. */
function whenOver(clearUp: () => Promise<void>): void {
  try {
    onTestFinished(clearUp)
  } catch {
    leftovers.push(clearUp)
  }
}

/** Milliseconds for a daemon to be ready, or to end; far above what a loaded machine takes. */
const PATIENCE_MS = 60_000

export interface DaemonOptions {
  /** Directory of an earlier daemon, to start it again with what it had. */
  readonly dir?: string
  readonly bootstrap?: readonly Pick<TestDaemon, 'addresses'>[]
  readonly env?: Readonly<Record<string, string>>
  /** User and group that the daemon runs as. */
  readonly user?: { readonly uid: number, readonly gid: number }
  /** Where the data directory is, if not in `dir`. */
  readonly dataDir?: string
}

/** What a command of the command line printed, and how it ended. */
export interface CommandResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** A real daemon in a process of its own, with everything it keeps in one temporary directory. */
export class TestDaemon {
  readonly dir: string
  readonly socket: string
  readonly dataDir: string
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly client: ControlClient
  readonly #process: ChildProcess
  readonly #log: () => string

  private constructor(process: ChildProcess, ready: Ready, dir: string, log: () => string) {
    this.#process = process
    this.#log = log
    this.dir = dir
    this.socket = ready.socket
    this.dataDir = ready.dataDir
    this.peerId = ready.peerId
    this.addresses = ready.addresses
    this.client = new ControlClient({ socket: ready.socket })
  }

  /** Starts a daemon and resolves when it is ready; it ends with the test, or with the file where no test runs. */
  static async start(options: DaemonOptions = {}): Promise<TestDaemon> {
    const dir = options.dir ?? await temporaryDirectory()
    const child = spawnDaemon(dir, options)
    const log = collect(child.stderr)
    const ready = await untilReady(child, log)
    const daemon = new TestDaemon(child, ready, dir, log)
    whenOver(async () => { await daemon.kill('SIGKILL') })
    return daemon
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  /** What the daemon has logged so far. */
  get log(): string {
    return this.#log()
  }

  /** Sends a signal and resolves with the exit code, or null where the signal ended it. */
  async kill(signal: NodeJS.Signals): Promise<number | null> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return this.#process.exitCode
    const ended = once(this.#process, 'exit', { signal: AbortSignal.timeout(PATIENCE_MS) })
    this.#process.kill(signal)
    const [code] = await ended as [number | null]
    return code
  }

  /** Ends the daemon as a service manager does. */
  stop(): Promise<number | null> {
    return this.kill('SIGTERM')
  }

  /** Runs `narvik` against this daemon. */
  run(...args: string[]): Promise<CommandResult> {
    return runCli([...args, '--socket', this.socket])
  }

  /** Runs `narvik … --json` and parses what it prints; a failure throws with what went to stderr. */
  async json<T>(...args: string[]): Promise<T> {
    const { exitCode, stdout, stderr } = await this.run(...args, '--json')
    if (exitCode !== 0) throw new Error(`narvik ${args.join(' ')} ended with ${exitCode}: ${stdout}${stderr}\n${this.log}`)
    return JSON.parse(stdout) as T
  }

  /** Resident memory in MiB: now, and the most it ever was. */
  async memory(): Promise<{ rss: number, peak: number }> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8')
    const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024
    return { rss: field('VmRSS'), peak: field('VmHWM') }
  }

  /** Resolves when `count` peers are connected. */
  async untilPeers(count: number): Promise<void> {
    await until(async () => (await this.client.status()).peers >= count, `${count} peers on ${this.peerId}`)
  }
}

/** Runs the command line from this checkout. */
export async function runCli(args: readonly string[], options: { input?: Uint8Array, env?: Record<string, string> } = {}): Promise<CommandResult> {
  const { exitCode, stdout, stderr } = await execa(NARVIK, args, {
    reject: false, env: { NO_COLOR: '1', ...options.env }, ...(options.input && { input: options.input }),
  })
  return { exitCode: exitCode ?? -1, stdout, stderr }
}

/** As many hosts as are asked for. */
type Fleet<Count extends number> = { 1: [TestDaemon], 2: [TestDaemon, TestDaemon], 3: [TestDaemon, TestDaemon, TestDaemon] }[Count & (1 | 2 | 3)]

/** Hosts that know each other through the first one, all connected. */
export async function startFleet<Count extends 1 | 2 | 3>(count: Count, options: DaemonOptions = {}): Promise<Fleet<Count>> {
  const first = await TestDaemon.start(options)
  const others = await Promise.all(Array.from({ length: count - 1 }, () => TestDaemon.start({ ...options, bootstrap: [first] })))
  const fleet = [first, ...others]
  await Promise.all(fleet.map(daemon => daemon.untilPeers(count - 1)))
  return fleet as Fleet<Count>
}

/** A directory that goes with the test, or with the file where no test runs. */
export async function temporaryDirectory(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'narvik-test-'))
  whenOver(async () => {
    await removeTree(dir)
    await rm(dir, { recursive: true, force: true })
  })
  return dir
}

/** Asks again and again until the answer is yes; for states that have no event to wait for from outside. */
export async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`Cannot go on: waited ${PATIENCE_MS} ms for ${what}`)
    await new Promise(resolve => setTimeout(resolve, 25))
  }
}

interface Ready {
  readonly peerId: string
  readonly addresses: string[]
  readonly socket: string
  readonly dataDir: string
}

function spawnDaemon(dir: string, { bootstrap = [], env = {}, user, dataDir }: DaemonOptions): ChildProcess {
  const args = ['daemon', '--json', '--no-mdns', '--data-dir', dataDir ?? join(dir, 'data'), '--socket', join(dir, 'run', 'narvik.sock')]
  for (const { addresses } of bootstrap) args.push(...addresses.flatMap(address => ['--bootstrap', address]))
  return spawn(NARVIK, args, {
    env: { ...process.env, NARVIK_LOG_FORMAT: 'text', NARVIK_LOG_LEVEL: 'debug', NARVIK_CONFIG: '/dev/null', NARVIK_NIX_STORE_ADD_MAX_BYTES: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...user,
  })
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = ''
  stream?.on('data', (bytes: Buffer) => { text = (text + bytes.toString()).slice(-1_000_000) })
  return () => text
}

async function untilReady(child: ChildProcess, log: () => string): Promise<Ready> {
  return new Promise((resolve, reject) => {
    let text = ''
    const timer = setTimeout(() => { reject(new Error(`the daemon was not ready in ${PATIENCE_MS} ms:\n${log()}`)) }, PATIENCE_MS)
    child.once('exit', code => { reject(new Error(`the daemon ended with ${String(code)}:\n${text}${log()}`)) })
    child.stdout?.on('data', (bytes: Buffer) => {
      text += bytes.toString()
      if (!text.includes('\n')) return
      clearTimeout(timer)
      const answer = JSON.parse(text) as Ready | { error: unknown }
      if ('error' in answer) reject(new Error(text))
      else resolve(answer)
    })
  })
}
