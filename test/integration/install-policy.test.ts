import { expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { TestDaemon, until } from '../helpers/fleet.ts'
import { DERIVATION, twoStores, type RealStore, type TwoStores } from '../helpers/two-stores.ts'

const POLICY = { NARVIK_NIX_INSTALL_FETCHED: 'true' }

it('what is fetched is installed by itself, and kept for as long as the catalog has it', async () => {
  const stores = await twoStores()
  const { receiver } = stores
  const [library, program] = await build(stores)
  const a = await TestDaemon.start({ env: stores.sender.env })
  const b = await TestDaemon.start({ env: receiver.env, bootstrap: [a] })
  await b.untilPeers(1)
  const { narHash } = await a.json<ImageJson>('import', '--closure', program)
  await b.json('fetch', narHash, '--closure')
  expect(await isValid(receiver, program)).toBe(false)

  // What was fetched before there was such a policy is installed as well.
  await b.stop()
  const again = await TestDaemon.start({ env: { ...receiver.env, ...POLICY }, dir: b.dir, bootstrap: [a] })
  await until(() => isValid(receiver, program), 'the program in the store')
  await receiver.run('nix', 'store', 'verify', '--recursive', program)

  const other = await stores.sender.run('nix-build', '--no-out-link', '-E', `(${DERIVATION}) "other" "echo other > $out"`)
  await stores.sender.run('nix', 'store', 'sign', '--key-file', stores.secretKey, other)
  await again.json('fetch', (await a.json<ImageJson>('import', other)).narHash)
  await until(() => isValid(receiver, other), 'the other path in the store')
  await until(async () => (await again.json<ImageDetailsJson>('show', other)).note === null, 'its root')

  await receiver.run('nix-store', '--gc')
  expect(await Promise.all([library, program, other].map(path => isValid(receiver, path)))).toEqual([true, true, true])
  await again.json('rm', program)
  await receiver.run('nix-store', '--gc')
  expect(await Promise.all([library, program, other].map(path => isValid(receiver, path)))).toEqual([true, false, true])
  await again.json('rm', library)
  await again.stop()
  await TestDaemon.start({ env: receiver.env, dir: b.dir })
  await receiver.run('nix-store', '--gc')
  expect(await Promise.all([library, other].map(path => isValid(receiver, path)))).toEqual([false, true])
})

it('what can not be installed is verified all the same, says why, and is installed once it can be', async () => {
  const stores = await twoStores()
  const [library, program] = await build(stores)
  const a = await TestDaemon.start({ env: stores.sender.env })
  const b = await TestDaemon.start({ env: { ...stores.receiver.env, ...POLICY }, bootstrap: [a] })
  // Narvik trusts the key, this host's Nix does not.
  const doubter = await TestDaemon.start({ env: { ...stores.receiver.env, NIX_CONFIG: `${stores.receiver.env['NIX_CONFIG'] ?? ''}\ntrusted-public-keys =` }, bootstrap: [a] })
  await Promise.all([b.untilPeers(2), doubter.untilPeers(2)])
  const { narHash } = await a.json<ImageJson>('import', '--closure', program)

  await b.json('fetch', narHash)
  await until(async () => (await b.json<ImageDetailsJson>('show', narHash)).note !== null, 'a note')
  expect(await b.json<ImageDetailsJson>('show', narHash)).toMatchObject({ state: 'verified', note: expect.stringContaining(`found 1 of its 1 references missing in the Nix store (${library})`) as string })

  await doubter.json('fetch', narHash, '--closure')
  const refused = await doubter.run('fetch', narHash, '--closure', '--install')
  expect(refused.exitCode).toBe(6)
  expect(refused.stderr).toContain('found neither a signature by a key that Nix trusts nor a content address')
  expect(await doubter.json<ImageDetailsJson>('show', narHash)).toMatchObject({ state: 'verified', note: expect.stringContaining('found neither a signature') as string })
  expect(await isValid(stores.receiver, library)).toBe(false)

  // All that while nothing new came, so it was not tried again.
  expect(b.log.split('cannot install what was fetched')).toHaveLength(2)
  await b.json('fetch', (await a.json<ImageJson>('show', library)).narHash)
  await until(() => isValid(stores.receiver, program), 'the program in the store')
  await until(async () => (await b.json<ImageDetailsJson>('show', narHash)).note === null, 'no note')

  // It is there by now: nothing is refused any more, and the same command says so.
  expect(await doubter.json<ImageJson>('fetch', narHash, '--closure', '--install')).toMatchObject({ state: 'verified', note: null })
})

async function build({ sender, secretKey }: TwoStores): Promise<[library: string, program: string]> {
  const library = await sender.run('nix-build', '--no-out-link', '-E', `(${DERIVATION}) "library" "echo library > $out"`)
  const program = await sender.run('nix-build', '--no-out-link', '-E', `let make = ${DERIVATION}; in make "program" "echo \${make "library" "echo library > $out"} > $out"`)
  await sender.run('nix', 'store', 'sign', '--recursive', '--key-file', secretKey, program)
  return [library, program]
}

async function isValid(store: RealStore, path: string): Promise<boolean> {
  return store.run('nix-store', '--check-validity', path).then(() => true, () => false)
}
