import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { expect, it, onTestFinished } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { throwAwayStore, type ThrowAwayStore } from '../helpers/nix-store.ts'

const NARVIK = new URL('../../bin/narvik', import.meta.url).pathname
const NOBODY = { uid: 65534, gid: 65534 }

it.runIf(process.getuid?.() === 0)('a user with no rights imports and installs through the machine\'s Nix daemon, which judges', async () => {
  const store = throwAwayStore()
  onTestFinished(() => { store.remove() })
  chmodSync(store.root, 0o755)
  const key = store.file('key', store.run('nix', 'key', 'generate-secret', '--key-name', 'fleet-1'))
  const publicKey = store.run('sh', '-c', `nix key convert-secret-to-public < ${key}`)
  const env = { ...store.env, NIX_CONFIG: `${store.env['NIX_CONFIG'] ?? ''}\ntrusted-public-keys = ${publicKey}`, NARVIK_TRUST_KEYS: publicKey }
  const [signed, unsigned] = ['signed', 'unsigned'].map(name => store.run('nix-build', '--no-out-link', '-E', `derivation { name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; }`))
  if (signed === undefined || unsigned === undefined) throw new Error('nothing was built')
  store.run('nix', 'store', 'sign', '--key-file', key, signed)

  await startNixDaemon(store, env)
  const a = await TestDaemon.start({ env })
  const b = await TestDaemon.start({ env: { ...env, HOME: await ownDirectory() }, dir: await ownDirectory(), user: NOBODY, bootstrap: [a] })
  await b.untilPeers(1)
  const hashes = []
  for (const path of [signed, unsigned]) {
    const { narHash } = await a.json<ImageJson>('import', path)
    await b.json('fetch', narHash)
    await a.json('rm', narHash)
    store.run('nix-store', '--delete', path)
    hashes.push(narHash)
  }

  expect(await b.json('install', signed)).toEqual({ storePath: signed, added: [signed] })
  expect(await b.json<ImageDetailsJson>('show', signed)).toMatchObject({ note: null })
  store.run('nix', 'store', 'verify', '--option', 'trusted-public-keys', publicKey, signed)
  const refused = await b.run('install', hashes[1] ?? '')
  expect(refused.exitCode).toBe(6)
  // Nix does not let who is not trusted switch that off.
  const insisted = await b.run('install', hashes[1] ?? '', '--no-check-sigs')
  expect(insisted.exitCode).toBe(6)
  expect(existsSync(unsigned)).toBe(false)

  // It is kept, and what such a user imports in place is as well.
  store.run('nix-store', '--gc')
  expect(existsSync(signed)).toBe(true)
  await b.json('rm', signed)
  expect(await b.json<ImageJson>('import', signed)).toMatchObject({ path: signed, vouchedBy: 'nix', note: null })
  store.run('nix-store', '--gc')
  expect(existsSync(signed)).toBe(true)
})

async function ownDirectory(): Promise<string> {
  const dir = await temporaryDirectory()
  mkdirSync(join(dir, 'own'))
  chmodSync(dir, 0o755)
  chownSync(join(dir, 'own'), NOBODY.uid, NOBODY.gid)
  return join(dir, 'own')
}

async function startNixDaemon(store: ThrowAwayStore, env: Record<string, string>): Promise<void> {
  const child = spawn('nix-daemon', ['--daemon'], { env: { ...process.env, ...env }, stdio: 'ignore' })
  onTestFinished(() => { child.kill('SIGTERM') })
  const socket = join(store.root, 'var/daemon-socket/socket')
  await until(() => Promise.resolve(existsSync(socket)), 'the socket of the Nix daemon')
  execFileSync('nix', ['store', 'ping', '--store', 'daemon', '--extra-experimental-features', 'nix-command'], { env: { ...process.env, ...env }, stdio: 'ignore' })
}

it.runIf(process.getuid?.() === 0)('a user whom the socket does not let in is told how to get in, and not to start a daemon', async () => {
  const daemon = await TestDaemon.start()
  chmodSync(daemon.dir, 0o755)
  const { exitCode, stdout } = await execa(NARVIK, ['status', '--json', '--socket', daemon.socket], { ...NOBODY, reject: false })
  expect(exitCode).toBe(3)
  expect(JSON.parse(stdout)).toMatchObject({
    error: { code: 'unreachable', message: expect.stringContaining('found a socket that this user may not open, needed its owner or a user of its group') as string, hint: expect.stringContaining('be in its group') as string },
  })
})
