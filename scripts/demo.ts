/**
 * Three nodes in a temporary directory: an image goes from one to the others, then a provider serves a flipped byte and
 * the quarantine holds it. Everything that is shown is what the real `narvik` prints.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, open, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { styleText } from 'node:util'
import { randomFillSync } from 'node:crypto'
import { execa } from 'execa'
import { NarHash } from '../src/image/nar-hash.ts'
import { removeTree } from '../src/nar/remove.ts'

const NARVIK = new URL('../bin/narvik', import.meta.url).pathname
const MIB = 1024 * 1024

interface Host {
  readonly name: string
  readonly dataDir: string
  readonly socket: string
  readonly address: string
  readonly process: ChildProcess
  /** What makes Nix use this host's store. */
  readonly nixEnv: Record<string, string>
}

const dir = await mkdtemp(join(tmpdir(), 'narvik-demo-'))
/** A Nix store of the demo's own: what is on this machine stays as it is. */
const env = {
  ...process.env,
  NIX_STORE_DIR: join(dir, 'nix', 'store'), NIX_STATE_DIR: join(dir, 'nix', 'state'), NIX_LOG_DIR: join(dir, 'nix', 'log'), NIX_REMOTE: '',
  NARVIK_CONFIG: '/dev/null', NARVIK_NIX_STORE_ADD_MAX_BYTES: '0',
}
const hosts: Host[] = []
try {
  await main()
} finally {
  for (const host of hosts) host.process.kill('SIGTERM')
  await Promise.all(hosts.filter(host => host.process.exitCode === null).map(host => once(host.process, 'exit')))
  await removeTree(dir)
}

async function main(): Promise<void> {
  say('Three hosts, each with a daemon of its own')
  const a = await startHost('a')
  const b = await startHost('b', a, await ownStore('b'))
  const c = await startHost('c', a)
  await Promise.all([a, b, c].map(untilConnected))
  await narvik(a, 'status')

  say('A builds an image: a directory with a disk, a script and a link')
  const image = await makeImage()
  const { narHash } = await imported(a, image, '--name', 'web-server')
  await narvik(a, 'list')

  say('B fetches it by its NAR hash, and proves it')
  await narvik(b, 'fetch', narHash, '--name', 'web-server')
  say('C fetches it from whoever has it, and copies it out')
  await narvik(c, 'fetch', narHash, '--name', 'web-server')
  await narvik(c, 'export', 'web-server', join(dir, 'exported'))
  await narvik(c, 'hash', join(dir, 'exported'))
  await showStorePath(a, b)

  say('A new small disk on A, which comes in one stream; then one bit flips on A\'s storage')
  const disk = join(dir, 'disk.raw')
  await writeFile(disk, randomFillSync(Buffer.alloc(MIB / 2)))
  const bad = await imported(a, disk, '--name', 'new-disk')
  await flipBit(join(a.dataDir, 'images', NarHash.parse(bad.narHash).toNix32()))

  say('B fetches it: the NAR hash is another one, so the image stays in quarantine, and A is named')
  await narvik(b, 'fetch', bad.narHash, '--name', 'new-disk')
  await narvik(b, 'list')
  await narvik(b, 'show', bad.narHash)

  say('The way out: A verifies what is on its disk, notices, and announces it no longer')
  await narvik(a, 'verify', 'new-disk')
  await narvik(a, 'list')
}

/** Another Nix store, whose paths are written like those of the first. */
async function ownStore(name: string): Promise<Record<string, string>> {
  const root = join(dir, `${name}-nix`)
  await mkdir(join(root, 'nix', 'store'), { recursive: true })
  return { NIX_REMOTE: root }
}

async function startHost(name: string, bootstrap?: Host, nixEnv: Record<string, string> = {}): Promise<Host> {
  const dataDir = join(dir, name)
  const socket = join(dir, `${name}-run`, 'narvik.sock')
  const args = ['daemon', '--json', '--no-mdns', '--data-dir', dataDir, '--socket', socket, ...(bootstrap === undefined ? [] : ['--bootstrap', bootstrap.address])]
  const child = spawn(NARVIK, args, { stdio: ['ignore', 'pipe', 'ignore'], env: { ...env, ...nixEnv } })
  const [line] = await once(createInterface(child.stdout), 'line') as [string]
  const { addresses } = JSON.parse(line) as { addresses?: string[] }
  if (addresses?.[0] === undefined) throw new Error(`the daemon of ${name} does not start: ${line}`)
  const host = { name, dataDir, socket, address: addresses[0], process: child, nixEnv }
  hosts.push(host)
  return host
}

async function untilConnected(host: Host): Promise<void> {
  for (;;) {
    const { stdout } = await execa(NARVIK, ['status', '--json', '--socket', host.socket])
    if ((JSON.parse(stdout) as { peers: number }).peers >= 2) return
  }
}

/** Runs a command as a person would, with its bar and colours on this terminal. */
async function narvik(host: Host, ...args: string[]): Promise<void> {
  console.log(styleText('bold', `${host.name}$ narvik ${args.join(' ')}`))
  const { exitCode } = await execa(NARVIK, [...args, ...(args[0] === 'hash' ? [] : ['--socket', host.socket])], { stdio: 'inherit', reject: false })
  if (exitCode !== 0) console.log(styleText('dim', `(exit code ${String(exitCode)})`))
  console.log()
}

/** Runs Nix on the store of a host. */
async function nix({ name, nixEnv }: Host, ...args: string[]): Promise<void> {
  console.log(styleText('bold', `${name}$ nix ${args.join(' ')}`))
  await execa('nix', [...args, '--extra-experimental-features', 'nix-command'], { stdio: 'inherit', reject: false, env: { ...env, ...nixEnv } })
  console.log('\n')
}

async function imported(host: Host, ...args: string[]): Promise<{ narHash: string }> {
  await narvik(host, 'import', ...args)
  const { stdout } = await execa(NARVIK, ['show', args.at(-1) ?? '', '--json', '--socket', host.socket])
  return JSON.parse(stdout) as { narHash: string }
}

async function makeImage(): Promise<string> {
  const path = join(dir, 'image')
  await mkdir(join(path, 'boot'), { recursive: true })
  await writeFile(join(path, 'boot', 'disk.raw'), randomFillSync(Buffer.alloc(64 * MIB)))
  await writeFile(join(path, 'run'), '#!/bin/sh\nexec qemu-system-x86_64 boot/disk.raw\n')
  await chmod(join(path, 'run'), 0o755)
  await symlink('boot/disk.raw', join(path, 'disk'))
  return path
}

/** Where there is Nix, a path of a real store goes the same way, with its references. */
async function showStorePath(from: Host, to: Host): Promise<void> {
  const expression = 'builtins.toFile "motd" "welcome, see ${builtins.toFile "rules" "be kind\\n"}\\n"'
  const made = await execa('nix-instantiate', ['--eval', '--strict', '--json', '--read-write-mode', '-E', expression], { reject: false, env })
  if (made.failed) {
    console.log(styleText('dim', `The store path is left out: ${made.shortMessage}\n`))
    return
  }
  say('A path of a real Nix store, with what it refers to: the trees stay where they are, and Nix\'s metadata travels along')
  const { narHash } = await imported(from, String(JSON.parse(made.stdout)), '--closure', '--name', 'motd')
  await narvik(to, 'fetch', narHash, '--closure')
  await narvik(to, 'show', narHash)
  say(`${to.name.toUpperCase()} registers both in its own Nix store, and Nix says of them what it says on ${from.name.toUpperCase()}`)
  await narvik(to, 'install', narHash, '--closure')
  await nix(to, 'path-info', '--json', '--recursive', String(JSON.parse(made.stdout)))
}

async function flipBit(file: string): Promise<void> {
  await chmod(file, 0o600)
  const handle = await open(file, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, MIB / 4)
  byte[0] = (byte[0] ?? 0) ^ 1
  await handle.write(byte, 0, 1, MIB / 4)
  await handle.close()
}

function say(text: string): void {
  console.log(`${styleText('cyan', `── ${text}`)}\n`)
}
