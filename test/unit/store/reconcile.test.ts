import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { NarHash } from '../../../src/image/nar-hash.ts'
import { STATES } from '../../../src/image/states.ts'
import type { ImageState } from '../../../src/image/states.ts'
import { silentLogger } from '../../../src/log.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import type { ImagePlace, ImageSource } from '../../../src/store/image-row.ts'
import { reconcile } from '../../../src/store/reconcile.ts'
import type { ReconcileReport } from '../../../src/store/reconcile.ts'
import { someHash, someMetadata, WAY_TO } from '../../helpers/images.ts'
import { expectInvariants } from '../../helpers/invariants.ts'
import { openStore } from '../../helpers/store.ts'
import type { Store } from '../../helpers/store.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { makeTree } from '../../helpers/tree.ts'

const narHash = someHash('image')
const NOTHING: ReconcileReport = { interrupted: [], dropped: [], withdrawn: [], damaged: [], missing: [], takenUp: [], removed: [], relinked: [], foreign: [] }

interface RowOptions { image?: NarHash, source?: ImageSource, name?: string, place?: ImagePlace, storePath?: string | null }

function addRow({ catalog }: Store, state: ImageState, { image = narHash, source = 'fetch', name = 'web', place = 'content', storePath = null }: RowOptions = {}): void {
  catalog.create({ narHash: image, source, place, name })
  catalog.describe(image, someMetadata(image, { storePath }), null)
  for (const event of WAY_TO[state]) catalog.transition(image, event, { reason: 'test' })
}

async function addTree({ content }: Store, where: 'quarantine' | 'images', image: NarHash = narHash): Promise<void> {
  await content.begin(image)
  await makeTree(where === 'images' ? content.imageTree(image) : content.quarantineTree(image), image)
}

/** Reconciles, checks what must hold, and that there is nothing left to do. */
async function settle(store: Store, foreign: string[] = []): Promise<ReconcileReport> {
  const report = await reconcile(store.catalog, store.content, { logger: silentLogger })
  await expectInvariants(store)
  expect(await reconcile(store.catalog, store.content, { logger: silentLogger })).toEqual({ ...NOTHING, foreign })
  return report
}

function stateOf({ catalog }: Store): ImageState | undefined {
  return catalog.get(narHash)?.state
}

describe('after a clean stop', () => {
  test('there is nothing to do', async () => {
    const store = await openStore()
    expect(await settle(store)).toEqual(NOTHING)
    addRow(store, 'verified')
    await addTree(store, 'quarantine')
    await store.content.publish(narHash)
    await store.content.link('web', store.content.imageTree(narHash))
    addRow(store, 'wanted', { image: someHash('wanted'), name: 'db' })
    await store.content.begin(someHash('wanted'))
    await store.content.writeProgress(someHash('wanted'), { offset: 10 })
    expect(await settle(store)).toEqual(NOTHING)
    expect(await store.content.readProgress(someHash('wanted'))).toEqual({ offset: 10 })
  })
})

describe('an image that was being received', () => {
  test('is wanted again, and keeps what it has', async () => {
    const store = await openStore()
    addRow(store, 'receiving')
    await addTree(store, 'quarantine')
    await store.content.writeProgress(narHash, { offset: 10 })
    expect(await settle(store)).toEqual({ ...NOTHING, interrupted: [narHash] })
    expect(stateOf(store)).toBe('wanted')
    expect(await store.content.readProgress(narHash)).toEqual({ offset: 10 })
    expect(await readdir(store.content.quarantineTree(narHash))).toContain('whole')
  })
})

describe('an import that was not finished', () => {
  for (const state of ['wanted', 'receiving'] as const) {
    test(`and is ${state} is dropped, with its files`, async () => {
      const store = await openStore()
      addRow(store, state, { source: 'import' })
      await addTree(store, 'quarantine')
      expect(await settle(store)).toEqual({ ...NOTHING, dropped: [narHash], removed: [store.content.quarantineTree(narHash)] })
      expect(store.catalog.get(narHash)).toBeUndefined()
      expect(store.catalog.journal(narHash).at(-1)).toMatchObject({ event: 'remove', from: state })
      expect(await readdir(join(store.dataDir, 'quarantine'))).toEqual([])
    })
  }
})

describe('a tree in sight', () => {
  for (const state of STATES) {
    test(`of an image that is ${state} stays only when that is verified`, async () => {
      const store = await openStore()
      addRow(store, state)
      await addTree(store, 'images')
      await store.content.link('web', store.content.imageTree(narHash))
      const report = await settle(store)
      expect(report.withdrawn).toEqual(state === 'quarantined' || state === 'rejected' ? [narHash] : [])
      expect(report.removed).toEqual(state === 'wanted' || state === 'receiving' ? [store.content.imageTree(narHash)] : [])
      expect(report.relinked).toEqual(state === 'verified' ? [] : ['web'])
      if (state === 'quarantined' || state === 'rejected') expect(await readdir(store.content.quarantineTree(narHash))).toContain('whole')
    })
  }

  test('whose image the catalog never heard of is kept, to be proven', async () => {
    const store = await openStore()
    await addTree(store, 'images')
    expect(await settle(store)).toEqual({ ...NOTHING, takenUp: [narHash] })
    expect(store.catalog.get(narHash)).toMatchObject({ state: 'quarantined', source: 'import', place: 'content', note: expect.stringContaining('catalog') as string })
    expect(await readdir(store.content.quarantineTree(narHash))).toContain('whole')
  })

  test('whose image was removed goes', async () => {
    const store = await openStore()
    addRow(store, 'verified')
    await addTree(store, 'images')
    store.catalog.remove(narHash, 'asked to')
    expect(await settle(store)).toEqual({ ...NOTHING, removed: [store.content.imageTree(narHash)] })
    expect(store.catalog.get(narHash)).toBeUndefined()
  })
})

describe('a verified image', () => {
  test('whose tree is in quarantine has to be proven again', async () => {
    const store = await openStore()
    addRow(store, 'verified')
    await addTree(store, 'quarantine')
    await store.content.link('web', store.content.imageTree(narHash))
    expect(await settle(store)).toEqual({ ...NOTHING, damaged: [narHash], relinked: ['web'] })
    expect(stateOf(store)).toBe('quarantined')
  })

  test('whose tree is gone is rejected, with the reason', async () => {
    const store = await openStore()
    addRow(store, 'verified')
    await store.content.begin(narHash)
    expect(await settle(store)).toEqual({ ...NOTHING, missing: [narHash] })
    expect(store.catalog.get(narHash)).toMatchObject({ state: 'rejected', reason: 'Its tree is not on disk any more' })
    expect(store.catalog.journal(narHash).at(-1)?.evidence?.notes?.[0]).toContain(store.content.imageTree(narHash))
  })

  test('loses what its quarantine still has', async () => {
    const store = await openStore()
    addRow(store, 'verified')
    await addTree(store, 'images')
    await addTree(store, 'quarantine')
    await store.content.link('web', store.content.imageTree(narHash))
    expect(await settle(store)).toEqual(NOTHING)
    expect(await readdir(join(store.dataDir, 'quarantine'))).toEqual([])
  })

  test('in the Nix store stays while its store path does', async () => {
    const store = await openStore()
    const storePath = join(await temporaryDirectory(), 'abc-image')
    await writeFile(storePath, 'an image')
    addRow(store, 'verified', { place: 'nix-store', storePath })
    const gone = someHash('gone')
    addRow(store, 'verified', { image: gone, name: 'gone', place: 'nix-store', storePath: `${storePath}-gone` })
    await addTree(store, 'images')
    await addTree(store, 'quarantine')
    expect(await settle(store)).toEqual({ ...NOTHING, missing: [gone], relinked: ['web'] })
    expect(stateOf(store)).toBe('verified')
    expect(store.catalog.get(gone)).toMatchObject({ state: 'rejected', reason: 'Its store path is not in the Nix store any more' })
  })

  test('in a Nix store that can not be looked into is left alone', async () => {
    const store = await openStore()
    const loop = join(await temporaryDirectory(), 'loop')
    await symlink(loop, loop)
    addRow(store, 'verified', { place: 'nix-store', storePath: join(loop, 'abc-image') })
    expect((await settle(store)).missing).toEqual([])
    expect(stateOf(store)).toBe('verified')
  })
})

describe('an image in quarantine', () => {
  test('without a tree is rejected', async () => {
    const store = await openStore()
    addRow(store, 'quarantined')
    addRow(store, 'quarantined', { image: someHash('nix'), name: 'nix', place: 'nix-store' })
    expect((await settle(store)).missing).toHaveLength(2)
    expect(stateOf(store)).toBe('rejected')
  })

  test('with its tree waits for its verdict', async () => {
    const store = await openStore()
    addRow(store, 'quarantined')
    await addTree(store, 'quarantine')
    expect(await settle(store)).toEqual(NOTHING)
    expect(stateOf(store)).toBe('quarantined')
  })

  test('without a row goes', async () => {
    const store = await openStore()
    await addTree(store, 'quarantine')
    expect(await settle(store)).toEqual({ ...NOTHING, removed: [store.content.quarantineTree(narHash)] })
  })
})

describe('names', () => {
  test('are linked for verified images only, whatever links there are', async () => {
    const store = await openStore()
    addRow(store, 'verified')
    await addTree(store, 'images')
    addRow(store, 'rejected', { image: someHash('bad'), name: 'bad' })
    await store.content.link('bad', '/etc')
    await store.content.link('other', store.content.imageTree(narHash))
    await store.content.link('web', '/etc')
    expect((await settle(store)).relinked.sort()).toEqual(['bad', 'other', 'web'])
  })
})

test('leftovers go, and what Narvik did not make stays', async () => {
  const store = await openStore()
  const { dir } = await store.content.stage()
  await makeTree(join(store.dataDir, 'quarantine', 'trash-0123456789abcdef'), narHash)
  await symlink('x', join(store.dataDir, 'by-name', '.tmp-0123456789abcdef'))
  const foreign = ['images/lost+found', 'quarantine/notes', 'by-name/notes'].map(path => join(store.dataDir, path))
  for (const path of foreign) await mkdir(path)
  const report = await reconcile(store.catalog, store.content, { logger: silentLogger })
  expect(report.removed).toHaveLength(3)
  expect(report.removed).toContain(dir)
  expect(report.foreign).toEqual(foreign)
  expect(await readdir(join(store.dataDir, 'quarantine'))).toEqual(['notes'])
  expect(await readdir(join(store.dataDir, 'by-name'))).toEqual(['notes'])
})

test('a catalog that was lost is made again from the trees, and nothing in sight is unproven', async () => {
  const first = await openStore()
  for (const seed of ['a', 'b', 'c']) {
    addRow(first, 'verified', { image: someHash(seed), name: seed })
    await addTree(first, 'quarantine', someHash(seed))
    await first.content.publish(someHash(seed))
    await first.content.link(seed, first.content.imageTree(someHash(seed)))
  }
  const second: Store = { ...first, catalog: Catalog.open(join(first.dataDir, 'new.db')) }
  const report = await settle(second)
  expect(report.takenUp).toHaveLength(3)
  expect(report.relinked.sort()).toEqual(['a', 'b', 'c'])
  // The links by name have what they were called; who may have them is not known any more.
  expect(second.catalog.list().map(({ name, state, isPrivate }) => [name, state, isPrivate]).sort()).toEqual(['a', 'b', 'c'].map(name => [name, 'quarantined', true]))
  second.catalog.close()
})
