import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { ControlClient } from '../src/control/client.ts'
import { removeTree } from '../src/nar/remove.ts'

const NARVIK = new URL('../bin/narvik', import.meta.url).pathname
const MIB = 1024 * 1024
const ready = z.object({ addresses: z.array(z.string()), socket: z.string() })

export interface HostOptions {
  readonly bootstrap?: readonly Host[]
  readonly env?: Readonly<Record<string, string>>
}

/** What a process has used so far. */
export interface Usage {
  /** MiB resident: now, and the most it ever was. */
  readonly resident: number
  readonly peak: number
  readonly cpuSeconds: number
}

/** A real daemon on loopback, started as its users start it, with everything it keeps in one temporary directory. */
export class Host {
  readonly dir: string
  readonly addresses: readonly string[]
  readonly client: ControlClient
  readonly #process: ChildProcess

  private constructor(process: ChildProcess, dir: string, { addresses, socket }: z.infer<typeof ready>) {
    this.#process = process
    this.dir = dir
    this.addresses = addresses
    this.client = new ControlClient({ socket })
  }

  static async start({ bootstrap = [], env = {} }: HostOptions = {}): Promise<Host> {
    const dir = await mkdtemp(join(tmpdir(), 'narvik-bench-host-'))
    const peers = bootstrap.flatMap(({ addresses }) => addresses.flatMap(address => ['--bootstrap', address]))
    const child = spawn(NARVIK, ['daemon', '--json', '--no-mdns', '--data-dir', join(dir, 'data'), '--socket', join(dir, 'run', 'narvik.sock'), ...peers], {
      env: { ...process.env, NARVIK_CONFIG: '/dev/null', NARVIK_LOG_LEVEL: 'warn', NARVIK_NIX_STORE_ADD_MAX_BYTES: '0', ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for await (const line of createInterface(child.stdout)) return new Host(child, dir, ready.parse(JSON.parse(line)))
    throw new Error('Cannot start a daemon: found its end, needed the line that says it is ready')
  }

  /** Resolves when `count` peers are connected. */
  async untilPeers(count: number): Promise<void> {
    while ((await this.client.status()).peers < count) await new Promise(resolve => setTimeout(resolve, 20))
  }

  async usage(): Promise<Usage> {
    const { pid } = this.#process
    const status = await readFile(`/proc/${String(pid)}/status`, 'utf8')
    const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8')
    const kib = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1])
    // Fields 14 and 15 are user and system time in ticks of 10 ms; the command before them may have spaces in it.
    const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 13).map(Number)
    return { resident: kib('VmRSS') * 1024 / MIB, peak: kib('VmHWM') * 1024 / MIB, cpuSeconds: ((user ?? 0) + (system ?? 0)) / 100 }
  }

  /** Ends the daemon and removes what it kept. */
  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGTERM')
      await once(this.#process, 'exit')
    }
    await removeTree(this.dir)
  }
}

/** Two daemons that are connected. */
export async function startPair(options: HostOptions = {}): Promise<[Host, Host]> {
  const provider = await Host.start(options)
  const receiver = await Host.start({ ...options, bootstrap: [provider] })
  await Promise.all([provider.untilPeers(1), receiver.untilPeers(1)])
  return [provider, receiver]
}
