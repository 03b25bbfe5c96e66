import { existsSync } from 'node:fs'
import { chmod, link, lstat, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ImageDetailsJson, ImageJson, VerifyReportJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { startFleet, TestDaemon, until } from '../helpers/fleet.ts'
import { throwAwayStore, type ThrowAwayStore } from '../helpers/nix-store.ts'

function makeStore(): ThrowAwayStore {
  const store = throwAwayStore()
  onTestFinished(() => { store.remove() })
  return store
}

/** A path with a reference, which nothing keeps but what a test does. */
function addPath(store: ThrowAwayStore): { path: string, reference: string } {
  const path = JSON.parse(store.run('nix-instantiate', '--eval', '--strict', '--json', '--read-write-mode', '-E', 'builtins.toFile "image" "see ${builtins.toFile "part" "hello"}"')) as string
  return { path, reference: store.run('nix-store', '-q', '--references', path) }
}

function rootOf(host: TestDaemon, { narHash }: ImageJson): string {
  return join(host.dataDir, 'gcroots', NarHash.parse(narHash).toNix32())
}

/** Changes bytes of a file in the store and leaves everything else of it as it was. */
async function alter(path: string): Promise<void> {
  const bytes = await readFile(path)
  bytes[0] = (bytes[0] ?? 0) ^ 1
  await chmod(path, 0o644)
  await writeFile(path, bytes)
  await chmod(path, 0o444)
}

async function untilState(host: TestDaemon, { narHash }: ImageJson, state: ImageJson['state']): Promise<ImageDetailsJson> {
  await until(async () => (await host.json<ImageJson>('show', narHash)).state === state, `${narHash} to be ${state}`)
  return host.json<ImageDetailsJson>('show', narHash)
}

describe('nix-collect-garbage', () => {
  it('leaves an image and what it refers to alone, until the image is removed', async () => {
    const store = makeStore()
    const { path, reference } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    expect(image).toMatchObject({ path, note: null })
    expect(store.run('nix-store', '--gc', '--print-roots')).toContain(`${rootOf(host, image)} -> ${path}`)
    store.run('nix-collect-garbage')
    expect([existsSync(path), existsSync(reference)]).toEqual([true, true])
    expect(await host.json<VerifyReportJson>('verify', image.narHash)).toMatchObject({ results: [{ verdict: 'pass' }] })

    await host.json('rm', image.narHash)
    expect(existsSync(rootOf(host, image))).toBe(false)
    store.run('nix-collect-garbage')
    expect([existsSync(path), existsSync(reference)]).toEqual([false, false])
  })

  it('leaves what was added from outside alone as well', async () => {
    const store = makeStore()
    const host = await TestDaemon.start({ env: { ...store.env, NARVIK_NIX_STORE_ADD_MAX_BYTES: '1048576' } })
    const image = await host.json<ImageJson>('import', store.file('tree', 'a tree'))
    expect(image.path).toMatch(/-tree$/)
    store.run('nix-collect-garbage')
    expect(existsSync(image.path ?? '')).toBe(true)
  })

  it('finds the root again after it was lost while the daemon was away', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    await host.stop()
    const lose = [() => rm(rootOf(host, image)), () => rm(join(store.root, 'var/gcroots/auto'), { recursive: true })]
    for (const loss of lose) {
      await loss()
      const again = await TestDaemon.start({ dir: host.dir, env: store.env })
      await until(() => Promise.resolve(store.run('nix-store', '--gc', '--print-roots').includes(rootOf(host, image))), 'the root')
      expect(await readlink(rootOf(host, image))).toBe(path)
      store.run('nix-collect-garbage')
      expect(existsSync(path)).toBe(true)
      await again.stop()
    }
  })

  it('takes the path of an image that the catalog has lost', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    await host.stop()
    await rm(join(host.dataDir, 'catalog.db'))
    await rm(join(host.dataDir, 'catalog.db-wal'), { force: true })
    await TestDaemon.start({ dir: host.dir, env: store.env })
    await until(() => Promise.resolve(!existsSync(rootOf(host, image))), 'the root to go')
    store.run('nix-collect-garbage')
    expect(existsSync(path)).toBe(false)
  })

  it('leaves a derivation alone, and its root builds nothing', async () => {
    const store = makeStore()
    const drv = store.run('nix-instantiate', '-E', 'derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }').split('!')[0] ?? ''
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', drv)
    expect(image).toMatchObject({ state: 'verified', path: drv, storePath: drv, vouchedBy: 'nix', note: null })
    store.run('nix-collect-garbage')
    expect(existsSync(drv)).toBe(true)
    expect(existsSync(store.run('nix-store', '-q', '--outputs', drv))).toBe(false)
  })
})

describe('a store path that is gone or altered all the same', () => {
  it('is found out by verify', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const [host, other] = await startFleet(2, { env: { ...store.env, NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '2' } })
    const image = await host.json<ImageJson>('import', path, '--name', 'image')
    await rm(rootOf(host, image))
    store.run('nix-store', '--delete', path)
    expect((await host.run('verify', image.narHash, '--json')).exitCode).toBe(5)
    expect(await host.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'rejected', path: null, reason: 'The tree is gone: found nothing where it was, needed it there' })
    expect(existsSync(join(host.dataDir, 'by-name/image'))).toBe(false)
    expect((await other.run('fetch', image.narHash, '--json')).exitCode).toBe(4)
  })

  it('is found out by verify where Nix has forgotten it, though its bytes are right', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    store.run('sh', '-c', `nix-store --dump ${path} > nar && mv ${path} aside && rm -r var/db`)
    store.run('mv', 'aside', path)
    expect((await host.run('verify', image.narHash, '--json')).exitCode).toBe(5)
    expect(await host.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'rejected', reason: expect.stringMatching(/valid path of its store any more/) as string })
  })

  it.each([
    ['altered', alter, /hashes to/],
    ['gone', (path: string) => rm(path), /not in the Nix store any more/],
  ])('is found out at the start: %s', async (_, change, reason) => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path, '--name', 'image')
    await host.stop()
    await change(path)
    const again = await TestDaemon.start({ dir: host.dir, env: store.env })
    // What was not judged yet is out of reach as well.
    expect((await again.json<ImageJson>('show', image.narHash)).path).toBeNull()
    const shown = await untilState(again, image, 'rejected')
    expect(shown.reason).toMatch(reason)
    expect(existsSync(join(host.dataDir, 'by-name/image'))).toBe(false)
    expect(existsSync(rootOf(host, image))).toBe(false)
  })

  it('is found out at the start where Nix has forgotten it', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    await host.stop()
    await rm(join(store.root, 'var/db'), { recursive: true })
    const again = await TestDaemon.start({ dir: host.dir, env: store.env })
    expect((await untilState(again, image, 'rejected')).reason).toMatch(/valid path of its store any more/)
  })

  it('is found out while it is served, though only its bytes changed', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const [host, other] = await startFleet(2, { env: { ...store.env, NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '2' } })
    const image = await host.json<ImageJson>('import', path)
    await alter(path)
    expect((await other.run('fetch', image.narHash, '--json')).exitCode).toBe(4)
    const shown = await untilState(host, image, 'rejected')
    expect(shown.journal.find(entry => entry.event === 'damage')?.reason).toMatch(/found it changed at/)
    expect(shown.reason).toMatch(/hashes to/)
    // Nobody was sent a wrong byte, so nobody is to blame.
    expect((await other.client.peers()).map(({ banned }) => banned)).toEqual([false])
  })

  it('is none where only its links changed, as by nix store optimise: it is proven anew', async () => {
    const store = makeStore()
    const { path } = addPath(store)
    const host = await TestDaemon.start({ env: store.env })
    const image = await host.json<ImageJson>('import', path)
    await host.stop()
    await link(path, join(store.root, 'another-link'))
    expect((await stat(path)).nlink).toBe(2)
    for (let start = 1; start <= 2; start++) {
      const again = await TestDaemon.start({ dir: host.dir, env: store.env })
      const shown = await untilState(again, image, 'verified')
      // Once is enough: the second start finds it as it was proven.
      expect(shown.journal.filter(entry => entry.event === 'damage')).toHaveLength(1)
      await again.stop()
    }
    expect((await lstat(rootOf(host, image))).isSymbolicLink()).toBe(true)
  })
})
