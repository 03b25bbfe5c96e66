import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { execa } from 'execa'
import { ControlClient } from '../../src/control/client.ts'
import { until, type CommandResult } from './fleet.ts'

/** A bare Debian is made once, and kept outside of the checkout. */
const ROOTS = '/var/tmp/narvik-test-roots'
const SUITE = 'bookworm'
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Whether this host can make and boot one: for root, with debootstrap and systemd-nspawn. */
export function canBoot(): boolean {
  const directories = (process.env.PATH ?? '').split(delimiter)
  return process.getuid?.() === 0 && ['debootstrap', 'systemd-nspawn', 'nsenter'].every(program => directories.some(directory => existsSync(join(directory, program))))
}

/** A bare Debian with a real systemd, booted in a container. */
export class Machine {
  readonly root: string
  readonly #process: ChildProcess
  #leader = 0

  private constructor(root: string, process: ChildProcess) {
    this.root = root
    this.#process = process
  }

  static async boot(): Promise<Machine> {
    const bare = await debian()
    const root = await mkdtemp(join(ROOTS, 'machine-'))
    await execa('cp', ['-a', '--reflink=auto', `${bare}/.`, root])
    const child = spawn('systemd-nspawn', ['-D', root, '--boot', '--register=no', '--keep-unit', '--console=pipe', '--quiet'], {
      env: { ...process.env, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '0' }, stdio: 'ignore',
    })
    const machine = new Machine(root, child)
    await until(async () => {
      if (child.exitCode !== null) throw new Error(`systemd-nspawn ended with ${child.exitCode}`)
      machine.#leader = Number((await readFile(`/proc/${child.pid ?? 0}/task/${child.pid ?? 0}/children`, 'utf8')).split(' ')[0])
      return machine.#leader > 0 && /running|degraded/.test((await machine.run('systemctl', 'is-system-running')).stdout)
    }, 'the machine to be up')
    return machine
  }

  /** Runs a command in the machine; never throws for how it ended. */
  async run(...command: string[]): Promise<CommandResult> {
    const { exitCode, stdout, stderr } = await execa('nsenter', ['-t', String(this.#leader), '-a', 'env', '-i', `PATH=${PATH}`, 'HOME=/root', 'LANG=C', ...command], { reject: false, stdin: 'ignore' })
    return { exitCode: exitCode ?? -1, stdout, stderr }
  }

  /** What a command prints; one that fails throws with what it said. */
  async get(...command: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...command)
    if (exitCode !== 0) throw new Error(`${command.join(' ')} ended with ${exitCode}: ${stdout}\n${stderr}`)
    return stdout.trim()
  }

  /** A property of the unit of Narvik. */
  property(name: string): Promise<string> {
    return this.get('systemctl', 'show', '--property', name, '--value', 'narvikd')
  }

  /** Speaks to a control socket in the machine. */
  client(socket = '/run/narvik/narvik.sock'): ControlClient {
    return new ControlClient({ socket: this.path(socket) })
  }

  /** The place of a file of the machine as this host sees it, also where the machine has mounted something over it. */
  path(inside: string): string {
    return `/proc/${this.#leader}/root${inside}`
  }

  async end(): Promise<void> {
    const ended = new Promise(resolve => { this.#process.once('exit', resolve) })
    if (this.#process.exitCode === null) {
      this.#process.kill('SIGTERM')
      await ended
    }
    await rm(this.root, { recursive: true, force: true })
  }
}

/** Makes the bare Debian where there is none yet. */
async function debian(): Promise<string> {
  const root = join(ROOTS, SUITE)
  if (existsSync(root)) return root
  await mkdir(ROOTS, { recursive: true })
  const draft = await mkdtemp(join(ROOTS, 'making-'))
  await execa('debootstrap', ['--variant=minbase', '--include=systemd,systemd-sysv,dbus', SUITE, draft])
  await execa('chmod', ['755', draft])
  await rename(draft, root)
  return root
}
