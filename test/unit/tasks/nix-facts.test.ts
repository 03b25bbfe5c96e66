import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import type { TaskContext } from '../../../src/tasks/context.ts'
import { addToStore, checkFacts, isStorePath } from '../../../src/tasks/nix-facts.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'
import { plant } from '../../helpers/trees.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { basename, join } from 'node:path'
import { rename } from 'node:fs/promises'

type Nix = TaskContext['nix']

/** A tree at a store path of a store of its own, and a Nix that says this of it. */
async function inStore(said: (path: string, narHash: NixPathInfo['narHash'], narSize: number) => Partial<NixPathInfo> | null | Error): Promise<{ path: string, nix: Nix }> {
  const storeDir = await temporaryDirectory()
  const path = join(storeDir, basename(someStorePath(1)))
  const image = await makeImage(someTree(100))
  await rename(image.path, path)
  const nix: Nix = {
    storeDir,
    probe: () => Promise.resolve({ available: true, version: '2.8.0', flavour: 'nix' }),
    canWriteStore: () => Promise.resolve(true),
    addPath: () => Promise.resolve(path),
    verify: () => Promise.reject(new Error('not asked for')), closureInfo: () => Promise.reject(new Error('an import of one path asks for no closure')),
    hasRoot: () => Promise.resolve(true),
    startStoreDaemon: () => Promise.reject(new Error('an import registers nothing')),
    pathInfo: paths => {
      const answer = said(path, image.narHash, image.nar.length)
      if (answer instanceof Error) return Promise.reject(answer)
      const info = answer === null ? null : { path, narHash: image.narHash, narSize: image.nar.length, references: [], deriver: null, ca: null, signatures: [], ...answer } as NixPathInfo
      return Promise.resolve(new Map(paths.map(one => [one, info])))
    },
  }
  return { path, nix }
}

describe('a store path is imported', () => {
  it('in place, with what Nix knows of it, where that is true', async () => {
    const { path, nix } = await inStore(() => ({ references: [someStorePath(2)] }))
    const fleet = await FakeFleet.start({ nix })
    const row = await importImage(fleet.context, { path })
    expect(row).toMatchObject({ state: 'verified', place: 'nix-store', storePath: path, references: [someStorePath(2)], note: expect.stringContaining('may remove it') as string })
  })

  const untrue: [string, Parameters<typeof inStore>[0], RegExp][] = [
    ['has another hash than Nix says', () => ({ narHash: someHash(5) }), /Nix says that .* is sha256-.*, its bytes are sha256-/],
    ['has another size than Nix says', () => ({ narSize: 1 }), /has 1 bytes, it has/],
    ['is not valid to Nix', () => null, /not valid in its store/],
    ['Nix can not tell of', () => new NarvikError('nix-failed', 'Cannot ask: found it broken'), /found it broken/],
  ]
  it.each(untrue)('as a copy, without metadata and with a note, where it %s', async (_what, said, note) => {
    const { path, nix } = await inStore(said)
    const fleet = await FakeFleet.start({ nix })
    const row = await importImage(fleet.context, { path })
    expect(row).toMatchObject({ state: 'verified', place: 'content', storePath: null, references: [], note: expect.stringMatching(note) as string })
  })

  it('without asking Nix where that is turned off', async () => {
    const { path, nix } = await inStore(() => { throw new Error('it was asked') })
    const fleet = await FakeFleet.start({ nix, settings: { useNix: false } })
    expect(await importImage(fleet.context, { path })).toMatchObject({ place: 'content', note: expect.stringContaining('turned off') as string })
  })
})

describe('a tree outside the store', () => {
  const parts = (nix: Nix, storeAddMaxBytes = 1e6) => ({ nix, pathInfos: { get: (paths: readonly string[]) => nix.pathInfo(paths) }, logger: { debug() {}, info() {}, warn() {}, error() {} } as unknown as TaskContext['logger'], settings: { useNix: true, storeAddMaxBytes } as TaskContext['settings'] })

  it('is added to the store where it is small enough and the store takes it', async () => {
    const { path, nix } = await inStore(() => ({}))
    const tree = join(await temporaryDirectory(), '.odd name!')
    plant(tree, someTree(10))
    const listing = await scanTree(tree)
    let name = ''
    const noting: Nix = { ...nix, addPath: (_path, given) => { name = given; return Promise.resolve(path) } }
    expect((await addToStore(parts(noting), tree, listing, undefined))?.path).toBe(path)
    expect(name).toBe('odd-name-')
    expect(await addToStore(parts(noting, 100), tree, listing, undefined)).toBeNull()
    expect(await addToStore(parts({ ...nix, canWriteStore: () => Promise.resolve(false) }), tree, listing, undefined)).toBeNull()
    expect(await addToStore(parts({ ...nix, addPath: () => Promise.reject(new NarvikError('nix-failed', 'no')) }), tree, listing, undefined)).toBeNull()
  })
})

it('a store path is directly in the store, and Nix\'s word is held against the bytes', async () => {
  const { path, nix } = await inStore(() => ({}))
  expect(isStorePath(nix, path)).toBe(true)
  for (const other of [nix.storeDir, `${path}/disk`, `/elsewhere/${basename(path)}`, `${nix.storeDir}/short`]) expect(isStorePath(nix, other)).toBe(false)
  expect(checkFacts({ info: null, note: 'x' }, { narHash: someHash(1), narSize: 1, manifest: new Uint8Array(), manifestDigest: '' })).toEqual({ info: null, note: 'x' })
})
