import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { execa } from 'execa'

/** What is started dies with the process that started it, however that ends. */
const TOGETHER = ['setpriv', '--pdeathsig', 'KILL', '--']

/**
 * A network namespace without a name: it lives as long as the processes in it, and takes its devices with it. Nothing of it can be
 * left over, and no two runs can be in each other's way.
 */
export class Namespace implements AsyncDisposable {
  readonly #holder: ChildProcess
  readonly #link: string
  /** The words of a command that becomes the one behind it, inside. */
  readonly via: readonly string[]

  private constructor(holder: ChildProcess, link: string) {
    this.#holder = holder
    this.#link = link
    this.via = ['nsenter', `--net=/proc/${this.pid}/ns/net`, '--', ...TOGETHER]
  }

  static async create(): Promise<Namespace> {
    const holder = spawn('unshare', ['--net', '--', ...TOGETHER, 'sh', '-c', 'echo inside; exec sleep infinity'], { stdio: ['ignore', 'pipe', 'inherit'] })
    for await (const line of createInterface(holder.stdout)) {
      if (line !== 'inside') break
      const namespace = new Namespace(holder, readlinkSync(`/proc/${String(holder.pid)}/ns/net`))
      alive.add(namespace)
      await namespace.run('ip', 'link', 'set', 'lo', 'up')
      return namespace
    }
    throw new Error('Cannot make a network namespace: found that unshare ended, needed its process to stay')
  }

  /** Of the process that holds it open; its files under /proc are those of the namespace. */
  get pid(): number {
    return this.#holder.pid ?? 0
  }

  /** Runs a command inside and resolves with what it prints. */
  async run(program: string, ...args: string[]): Promise<string> {
    const [first = program, ...words] = [...this.via, program, ...args]
    const { stdout } = await execa(first, words)
    return stdout
  }

  /** Starts a command inside. */
  spawn(program: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const [first = program, ...words] = [...this.via, program, ...args]
    return spawn(first, words, options)
  }

  /** Bytes that a device took in and gave out, as the kernel counts them for it: the headers of what goes in one piece count once. */
  deviceBytes(device: string): { received: number, sent: number } {
    const line = readFileSync(`/proc/${this.pid}/net/dev`, 'latin1').split('\n').find(text => text.trim().startsWith(`${device}:`))
    const fields = line?.split(':')[1]?.trim().split(/\s+/).map(Number) ?? []
    return { received: fields[0] ?? 0, sent: fields[8] ?? 0 }
  }

  /** Ends everything inside, at once, as its devices can't be waited for. */
  kill(): void {
    for (const pid of processesIn(this.#link)) killOne(pid)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    alive.delete(this)
    const ended = this.#holder.exitCode === null && this.#holder.signalCode === null ? once(this.#holder, 'exit') : undefined
    this.kill()
    await ended
    while (processesIn(this.#link).length > 0) await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Ends whatever runs in the namespaces of this process; for when there is no time left. */
export function killAll(): void {
  for (const namespace of alive) namespace.kill()
}

const alive = new Set<Namespace>()

function processesIn(link: string): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => isIn(pid, link))
}

/** One that has ended, and is only waited for, is nowhere any more. */
function isIn(pid: number, link: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === link
  } catch {
    return false
  }
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself meanwhile.
  }
}
