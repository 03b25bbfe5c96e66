import { execa } from 'execa'
import { chmod, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson, InstallResultJson } from '../../src/control/api.ts'
import { TestDaemon, until } from '../helpers/fleet.ts'
import { DERIVATION, twoStores, type RealStore, type TwoStores } from '../helpers/two-stores.ts'

/** More paths than are asked for one by one, two of them with the same contents, one of them large. */
const LEAVES = 40
const EXPRESSION = `
  let
    make = ${DERIVATION};
    leaves = builtins.genList (n: builtins.toFile "leaf-\${toString n}" "leaf \${toString n}\\n") ${LEAVES};
    twins = map (name: builtins.toFile name "the same\\n") [ "one" "two" ];
    empty = make "empty" "mkdir $out";
    large = make "large" "echo \${builtins.head leaves} > $out; head -c 150000000 /dev/zero >> $out";
    library = make "library" "mkdir -p $out/lib; echo \${toString leaves} \${large} $out > $out/lib/list; ln -s \${empty} $out/empty";
  in make "system" "mkdir $out; echo \${library} \${toString twins} > $out/run; chmod +x $out/run"`

it('a closure goes from one real store to another, and is there what it was', async () => {
  const stores = await twoStores()
  const system = await buildSystem(stores)
  const paths = await pathsOf(stores.sender, system)
  const { a, b } = await twoHosts(stores)

  const image = await a.json<ImageJson>('import', '--closure', system, '--name', 'system')
  expect(image).toMatchObject({ storePath: system, state: 'verified', name: 'system' })
  expect((await a.json<ImageDetailsJson>('show', 'system')).closure).toMatchObject({ paths: paths.length, missing: [] })

  expect(await b.json<ImageJson>('fetch', image.narHash, '--closure', '--name', 'here')).toMatchObject({ narHash: image.narHash, state: 'verified', storePath: system, name: 'here' })
  const details = await b.json<ImageDetailsJson>('show', system)
  expect(details.closure).toMatchObject({ paths: paths.length, missing: [] })
  await expectDependenciesFirst(b)

  expect(await b.json<InstallResultJson>('install', 'here', '--closure')).toMatchObject({ storePath: system, added: expect.arrayContaining(paths) as string[] })
  expect(await infosOf(stores.receiver, system)).toEqual(await infosOf(stores.sender, system))
  await stores.receiver.run('nix', 'store', 'verify', '--recursive', system)
  expect(await b.json('install', 'here', '--closure')).toEqual({ storePath: system, added: [] })

  // Both of those with the same contents are at their own paths.
  const twins = paths.filter(path => /-(?:one|two)$/.test(path))
  expect(twins).toHaveLength(2)
  const [one, two] = await Promise.all(twins.map(path => b.json<ImageDetailsJson>('show', path)))
  expect(one?.narHash).toBe(two?.narHash)
  expect([one?.storePath, ...one?.otherStorePaths ?? []].toSorted()).toEqual(twins.toSorted())
})

it('what is missing is named, neither served nor installed as a closure, and fetched alone', async () => {
  const stores = await twoStores()
  const system = await buildSystem(stores)
  const paths = await pathsOf(stores.sender, system)
  const { a, b } = await twoHosts(stores)
  const image = await a.json<ImageJson>('import', '--closure', system)
  await b.json('fetch', image.narHash)
  const references = (await a.json<ImageDetailsJson>('show', system)).references
  expect((await b.json<ImageDetailsJson>('show', system)).closure).toEqual({ paths: 1, narSize: image.narSize, missing: references })

  const refused = await b.run('install', system, '--closure')
  expect(refused.exitCode).toBe(1)
  expect(refused.stderr).toContain(`Cannot install the closure of ${system}: found ${references.length} of the paths that it needs not verified here (${references.join(', ')})`)

  // A third host, whose only provider of the closure as a whole is A.
  const c = await TestDaemon.start({ env: stores.receiver.env, bootstrap: [b] })
  await c.untilPeers(2)
  await c.json('fetch', image.narHash, '--closure')
  expect((await c.json<ImageDetailsJson>('show', system)).closure).toMatchObject({ paths: paths.length, missing: [] })

  // One goes: only that one comes again.
  const leaf = paths.find(path => path.endsWith('-leaf-7')) ?? ''
  await b.json('fetch', image.narHash, '--closure')
  const received = await bytesReceived(b)
  await b.json('rm', leaf)
  expect((await b.json<ImageDetailsJson>('show', system)).closure?.missing).toEqual([leaf])
  await b.json('fetch', image.narHash, '--closure')
  expect((await b.json<ImageDetailsJson>('show', system)).closure?.missing).toEqual([])
  // Besides that one only the list of the paths comes.
  expect(await bytesReceived(b) - received).toBeLessThan(received / 2)
})

it('a fetch goes on by itself after the daemon was killed, and receives nothing again that was here', async () => {
  const stores = await twoStores()
  const system = await buildSystem(stores)
  const paths = await pathsOf(stores.sender, system)
  const { a, b } = await twoHosts(stores)
  const { narHash } = await a.json<ImageJson>('import', '--closure', system)
  // When the large path is on its way, what it does not need is here, and what needs it has come packed.
  const { promise: isOnItsWay, resolve, reject } = Promise.withResolvers<undefined>()
  b.client.fetch({ ref: narHash, closure: true, name: 'system' }, { onProgress: ({ bytes }) => { if (bytes > 3_000_000) resolve(undefined) } }).then(() => { resolve(undefined) }, reject)
  isOnItsWay.catch(() => undefined)
  await isOnItsWay
  process.kill(a.pid, 'SIGSTOP')
  await b.kill('SIGKILL')
  process.kill(a.pid, 'SIGCONT')

  const again = await TestDaemon.start({ env: stores.receiver.env, dir: b.dir, bootstrap: [a] })
  await until(async () => (await again.json<ImageJson[]>('list')).some(image => image.narHash === narHash && image.state === 'verified'), 'the closure')
  const details = await again.json<ImageDetailsJson>('show', 'system')
  expect(details).toMatchObject({ storePath: system, closure: { paths: paths.length, missing: [] } })
  const images = await again.json<ImageJson[]>('list')
  const starts = async (image: ImageJson): Promise<number> => (await again.json<ImageDetailsJson>('show', image.narHash)).journal.filter(({ event }) => event === 'start').length
  for (const image of images) if (!/-large$/.test(image.storePath ?? '')) expect(await starts(image), image.storePath ?? '').toBe(1)
  // A later start has nothing to go on with.
  await again.stop()
  const last = await TestDaemon.start({ env: stores.receiver.env, dir: b.dir })
  expect(await last.client.transfers()).toEqual([])
})

it('a path that was altered on the way is rejected, its sender banned, and the closure is not whole', async () => {
  const stores = await twoStores()
  const system = await buildSystem(stores)
  const paths = await pathsOf(stores.sender, system)
  const { a: origin, b: a } = await twoHosts(stores)
  const image = await origin.json<ImageJson>('import', '--closure', system)
  await a.json('fetch', image.narHash, '--closure')
  await origin.stop()
  // Where it is served from the Nix store, its host would see that it was altered, and not send it.
  const bad = await a.json<ImageJson>('show', paths.find(path => path.endsWith('-leaf-9')) ?? '')
  await alter(bad.path ?? '')

  const b = await TestDaemon.start({ env: { ...stores.receiver.env, NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '3' }, bootstrap: [a] })
  await b.untilPeers(1)
  const failed = await b.run('fetch', image.narHash, '--closure', '--json')
  expect(failed.exitCode).toBe(5)
  expect(failed.stdout).toContain(bad.narHash)
  const details = await b.json<ImageDetailsJson>('show', bad.narHash)
  expect(details).toMatchObject({ state: 'rejected', path: null })
  expect(details.journal.at(-1)?.evidence?.peers).toMatchObject([{ peerId: a.peerId, outcome: 'lied' }])
  expect(await b.client.peers()).toMatchObject([{ peerId: a.peerId, banned: true }])
  // What needs it may have arrived, and stays out of sight.
  const images = await b.json<ImageJson[]>('list')
  expect(images.filter(({ state }) => state === 'verified').flatMap(({ references }) => references)).toEqual([])
  expect(images.find(({ narHash }) => narHash === image.narHash)?.path ?? null).toBeNull()
})

it('a closure that too few trusted keys signed is refused, and nobody banned; once it is signed, it goes on', async () => {
  const stores = await twoStores()
  const system = await buildSystem(stores, { signed: false })
  const a = await TestDaemon.start({ env: stores.sender.env })
  const b = await TestDaemon.start({ env: { ...stores.receiver.env, NARVIK_TRUST_SIGNATURES_BY_HASH: '1' }, bootstrap: [a] })
  await b.untilPeers(1)
  const { narHash } = await a.json<ImageJson>('import', '--closure', system)
  const refused = await b.run('fetch', narHash, '--closure', '--json')
  expect(refused.exitCode).toBe(6)
  expect(await b.client.peers()).toMatchObject([{ peerId: a.peerId, banned: false }])
  expect(await b.json<ImageJson[]>('list')).toEqual(expect.arrayContaining([expect.objectContaining({ state: 'rejected', storePath: null, path: null })]))

  await stores.sender.run('nix', 'store', 'sign', '--recursive', '--key-file', stores.secretKey, system)
  for (const image of await a.json<ImageJson[]>('list')) await a.json('rm', image.narHash)
  await a.json('import', '--closure', system)
  await b.json('fetch', narHash, '--closure')
  expect(await b.json<ImageDetailsJson>('show', system)).toMatchObject({ vouchedBy: 'signatures', closure: { missing: [] } })
})

it('what can not be imported as a closure says why', async () => {
  const stores = await twoStores()
  const a = await TestDaemon.start({ env: stores.sender.env })
  const outside = await a.run('import', '--closure', stores.dir)
  expect(outside.exitCode).toBe(2)
  expect(outside.stderr).toContain(`found a path outside ${stores.storeDir}, needed a store path`)
  const system = await buildSystem(stores)
  const leaf = (await pathsOf(stores.sender, system)).find(path => path.endsWith('-leaf-3')) ?? ''
  await alter(leaf)
  const damaged = await a.run('import', '--closure', system)
  expect(damaged.exitCode).toBe(5)
  expect(damaged.stderr).toContain(`found that ${leaf} is sha256-`)
  const off = await TestDaemon.start({ env: { ...stores.sender.env, NARVIK_NIX_ENABLED: 'false' } })
  expect((await off.run('import', '--closure', system)).exitCode).toBe(6)
})

async function buildSystem({ sender, secretKey }: TwoStores, { signed = true } = {}): Promise<string> {
  const system = await sender.run('nix-build', '--no-out-link', '-E', EXPRESSION)
  if (signed) await sender.run('nix', 'store', 'sign', '--recursive', '--key-file', secretKey, system)
  return system
}

async function twoHosts({ sender, receiver }: TwoStores): Promise<{ a: TestDaemon, b: TestDaemon }> {
  const a = await TestDaemon.start({ env: sender.env })
  const b = await TestDaemon.start({ env: receiver.env, bootstrap: [a] })
  await Promise.all([a, b].map(daemon => daemon.untilPeers(1)))
  return { a, b }
}

async function pathsOf(store: RealStore, path: string): Promise<string[]> {
  const paths = (await store.run('nix-store', '--query', '--requisites', path)).split('\n')
  expect(paths.length).toBe(LEAVES + 6)
  return paths
}

/** What Nix says of a closure, but for what is each store's own: when it was registered, and whether it was built there. */
async function infosOf(store: RealStore, path: string): Promise<unknown> {
  const infos = JSON.parse(await store.run('nix', 'path-info', '--json', '--recursive', path)) as Record<string, unknown>[]
  return infos.map(info => Object.fromEntries(Object.entries(info).filter(([field]) => field !== 'registrationTime' && field !== 'ultimate')))
}

/** No image is verified before those that it refers to. */
async function expectDependenciesFirst(host: TestDaemon): Promise<void> {
  const images = await host.json<ImageJson[]>('list')
  const verifiedAt = new Map(images.map(({ storePath, verifiedAt }) => [storePath, Date.parse(verifiedAt ?? '')]))
  for (const { storePath, references } of images) {
    for (const reference of references) {
      const needed = verifiedAt.get(reference)
      if (needed !== undefined) expect(needed, `${basename(reference)} before ${basename(storePath ?? '')}`).toBeLessThanOrEqual(verifiedAt.get(storePath) ?? 0)
    }
  }
}

async function bytesReceived(host: TestDaemon): Promise<number> {
  return (await host.client.peers()).reduce((sum, peer) => sum + peer.bytesReceived, 0)
}

/** Changes a file in the store without changing its size. */
async function alter(path: string): Promise<void> {
  await chmod(path, 0o600)
  const file = await open(path, 'r+')
  await file.write('L', 0)
  await file.close()
  await execa('chmod', ['444', path])
}
