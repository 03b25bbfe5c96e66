import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import type { ErrorCode } from '../../../src/errors.ts'
import { EVENTS, STATES, TRANSITIONS } from '../../../src/image/states.ts'
import type { ImageState } from '../../../src/image/states.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import { someHash, someMetadata, someStorePath, WAY_TO } from '../../helpers/images.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const NOON = new Date('2026-01-01T12:00:00Z')

async function openCatalog(now = NOON): Promise<{ catalog: Catalog, file: string }> {
  const file = join(await temporaryDirectory(), 'catalog.db')
  const catalog = Catalog.open(file, { now: () => now })
  onTestFinished(() => { catalog.close() })
  return { catalog, file }
}

function lead(catalog: Catalog, seed: string, state: ImageState): ReturnType<typeof someHash> {
  const narHash = someHash(seed)
  catalog.create({ narHash, source: 'fetch', place: 'content' })
  catalog.describe(narHash, someMetadata(narHash), null)
  for (const event of WAY_TO[state]) catalog.transition(narHash, event, { reason: `for ${state}` })
  return narHash
}

function codeOf(work: () => unknown): ErrorCode | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    if (isNarvikError(error)) return error.code
    throw error
  }
}

describe('an image in the catalog', () => {
  test('is wanted at first, and is found by its hash, its name and its store path', async () => {
    const { catalog } = await openCatalog()
    const narHash = someHash(1)
    const storePath = someStorePath(1)
    const created = catalog.create({ narHash, source: 'import', place: 'nix-store', name: 'web', note: 'no Nix' })
    expect(created).toMatchObject({ name: 'web', state: 'wanted', source: 'import', place: 'nix-store', narSize: null, note: 'no Nix', createdAt: NOON, verifiedAt: null })
    expect(created.narHash.equals(narHash)).toBe(true)
    catalog.describe(narHash, someMetadata(narHash, { storePath }), null)
    for (const row of [catalog.get(narHash), catalog.getByName('web'), catalog.getByStorePath(storePath)]) {
      expect(row?.narHash.toSri()).toBe(narHash.toSri())
    }
    expect(catalog.get(someHash(2))).toBeUndefined()
    expect(catalog.getByName('db')).toBeUndefined()
    expect(catalog.getByStorePath(someStorePath(2))).toBeUndefined()
  })

  test('is created once', async () => {
    const { catalog } = await openCatalog()
    catalog.create({ narHash: someHash(1), source: 'fetch', place: 'content' })
    expect(codeOf(() => catalog.create({ narHash: someHash(1), source: 'fetch', place: 'content' }))).toBe('conflict')
    expect(catalog.journal(someHash(1))).toHaveLength(1)
  })

  test('keeps all of its metadata, references sorted and signatures in order', async () => {
    const { catalog, file } = await openCatalog()
    const narHash = someHash(1)
    const metadata = someMetadata(narHash, {
      narSize: 2 ** 43, storePath: someStorePath(1), references: [someStorePath(3), someStorePath(1), someStorePath(2)],
      deriver: `${someStorePath(9)}.drv`, ca: 'fixed:r:sha256:abc', signatures: ['z:2', 'a:1'], manifestDigest: 'a'.repeat(64),
    })
    catalog.create({ narHash, source: 'fetch', place: 'content', name: 'web' })
    catalog.describe(narHash, { ...metadata, name: 'the-name-elsewhere' }, Buffer.from('a manifest'))
    catalog.close()
    const again = Catalog.open(file)
    onTestFinished(() => { again.close() })
    expect(again.get(narHash)).toMatchObject({ ...metadata, name: 'web', references: [...metadata.references].sort() })
    expect(Buffer.from(again.manifest(narHash) ?? []).toString()).toBe('a manifest')
  })

  test('is described anew until it is verified', async () => {
    const { catalog } = await openCatalog()
    const narHash = lead(catalog, 'image', 'quarantined')
    catalog.describe(narHash, someMetadata(narHash, { references: [someStorePath(1)], signatures: ['a:1'] }), Buffer.from('one'), { note: 'first' })
    const row = catalog.describe(narHash, someMetadata(narHash, { narSize: 7 }), null)
    expect(row).toMatchObject({ narSize: 7, references: [], signatures: [], note: 'first' })
    expect(catalog.manifest(narHash)).toBeUndefined()
    expect(codeOf(() => catalog.describe(narHash, someMetadata(someHash('other')), null))).toBe('invalid-argument')
    catalog.transition(narHash, 'pass', { reason: 'proven' })
    expect(codeOf(() => catalog.describe(narHash, someMetadata(narHash), null))).toBe('conflict')
    expect(codeOf(() => catalog.describe(someHash('absent'), someMetadata(someHash('absent')), null))).toBe('not-found')
  })

  test('has a name that no other image has', async () => {
    const { catalog } = await openCatalog()
    const [one, two] = [someHash(1), someHash(2)]
    catalog.create({ narHash: one, source: 'fetch', place: 'content', name: 'web' })
    catalog.create({ narHash: two, source: 'fetch', place: 'content' })
    expect(() => catalog.setName(two, 'web')).toThrow(one.toSri())
    expect(codeOf(() => catalog.setName(two, 'web'))).toBe('name-taken')
    expect(codeOf(() => catalog.create({ narHash: someHash(3), source: 'fetch', place: 'content', name: 'web' }))).toBe('name-taken')
    expect(catalog.get(someHash(3))).toBeUndefined()
    expect(catalog.setName(one, 'web').name).toBe('web')
    catalog.setName(one, null)
    expect(catalog.setName(two, 'web').name).toBe('web')
    for (const name of ['', '.', '..', '.hidden', 'a/b', 'a\0b', 'a'.repeat(212)]) {
      expect(codeOf(() => catalog.setName(one, name)), name).toBe('invalid-argument')
    }
  })

  test('is listed in the order of creation, by state', async () => {
    const { catalog } = await openCatalog()
    for (const state of STATES) lead(catalog, state, state)
    for (const state of STATES) expect(catalog.list({ state }).map(row => row.state)).toEqual([state])
    expect(catalog.list()).toHaveLength(STATES.length)
  })

  test('that is verified is preferred where several claim a store path', async () => {
    const { catalog } = await openCatalog()
    const storePath = someStorePath(1)
    for (const seed of ['a', 'b', 'c']) {
      const narHash = someHash(seed)
      catalog.create({ narHash, source: 'fetch', place: 'content' })
      catalog.describe(narHash, someMetadata(narHash, { storePath }), null)
      if (seed === 'b') for (const event of WAY_TO.verified) catalog.transition(narHash, event, { reason: 'test' })
    }
    expect(catalog.getByStorePath(storePath)?.narHash.toSri()).toBe(someHash('b').toSri())
  })

  test('that is removed leaves its journal, and can come back', async () => {
    const { catalog } = await openCatalog()
    const narHash = lead(catalog, 'image', 'verified')
    catalog.describe(lead(catalog, 'other', 'wanted'), someMetadata(someHash('other')), null)
    catalog.remove(narHash, 'asked to')
    expect(catalog.get(narHash)).toBeUndefined()
    expect(catalog.manifest(narHash)).toBeUndefined()
    expect(catalog.journal(narHash).at(-1)).toEqual({ at: NOON, from: 'verified', to: null, event: 'remove', reason: 'asked to', evidence: null })
    expect(codeOf(() => { catalog.remove(narHash, 'again') })).toBe('not-found')
    expect(catalog.create({ narHash, source: 'fetch', place: 'content' }).state).toBe('wanted')
  })

  test('that is taken up is quarantined, with its whole journal or none', async () => {
    const { catalog } = await openCatalog()
    const narHash = someHash(1)
    expect(catalog.takeUp({ narHash, source: 'import', place: 'content' }, 'found').state).toBe('quarantined')
    expect(catalog.journal(narHash).map(entry => entry.event)).toEqual(['create', 'start', 'complete'])
    expect(codeOf(() => catalog.takeUp({ narHash, source: 'import', place: 'content' }, 'found'))).toBe('conflict')
    expect(catalog.journal(narHash)).toHaveLength(3)
  })
})

describe('a change of state', () => {
  test('happens for every step of the table, and for no other', async () => {
    const { catalog } = await openCatalog()
    for (const state of STATES) {
      for (const event of EVENTS) {
        const narHash = lead(catalog, `${state} ${event}`, state)
        const before = catalog.journal(narHash)
        const to = TRANSITIONS[state][event]
        if (to === undefined) {
          expect(codeOf(() => catalog.transition(narHash, event, { reason: 'test' })), `${state} ${event}`).toBe('conflict')
          expect(catalog.get(narHash)?.state).toBe(state)
          expect(catalog.journal(narHash)).toEqual(before)
        } else {
          const verified = to === 'verified'
          expect(catalog.transition(narHash, event, { reason: 'test' })).toMatchObject({ state: to, reason: verified ? null : 'test', verifiedAt: verified ? NOON : null })
          expect(catalog.journal(narHash)).toEqual([...before, { at: NOON, from: state, to, event, reason: 'test', evidence: null }])
        }
      }
    }
  })

  test('keeps its evidence', async () => {
    const { catalog } = await openCatalog()
    const narHash = lead(catalog, 'image', 'quarantined')
    const evidence = { peers: [{ peerId: '12D3', bytes: 10, outcome: 'lied', detail: null }], notes: ['ünïcode'] } as const
    catalog.transition(narHash, 'fail', { reason: 'the bytes are others', evidence })
    expect(catalog.journal(narHash).at(-1)?.evidence).toEqual(evidence)
  })

  test('to verified needs the size, and the store path where the tree is in the Nix store', async () => {
    const { catalog } = await openCatalog()
    const [one, two] = [someHash(1), someHash(2)]
    catalog.takeUp({ narHash: one, source: 'import', place: 'content' }, 'test')
    expect(() => catalog.transition(one, 'pass', { reason: 'test' })).toThrow('NAR size')
    catalog.takeUp({ narHash: two, source: 'import', place: 'nix-store' }, 'test')
    catalog.describe(two, someMetadata(two), null)
    expect(() => catalog.transition(two, 'pass', { reason: 'test' })).toThrow('store path')
  })

  test('to be retried makes the image one that is fetched, wherever it came from', async () => {
    const { catalog } = await openCatalog()
    const narHash = someHash(1)
    catalog.takeUp({ narHash, source: 'import', place: 'nix-store' }, 'test')
    catalog.transition(narHash, 'fail', { reason: 'test' })
    expect(catalog.transition(narHash, 'retry', { reason: 'test' })).toMatchObject({ state: 'wanted', source: 'fetch', place: 'content' })
  })

  test('of an image that is not there is not found', async () => {
    const { catalog } = await openCatalog()
    expect(codeOf(() => catalog.transition(someHash(1), 'start', { reason: 'test' }))).toBe('not-found')
  })
})

describe('an image that is at several store paths', () => {
  const other = (storePath: string) => ({ storePath, references: [someStorePath('z'), someStorePath('y')].sort(), deriver: null, ca: 'text:sha256:x', signatures: ['k:AA=='], vouchedBy: 'nix' as const })

  test('is found by each of them, and has what belongs to each', async () => {
    const { catalog } = await openCatalog()
    const narHash = someHash('twin')
    const first = someStorePath('first')
    catalog.create({ narHash, source: 'fetch', place: 'content' })
    catalog.describe(narHash, someMetadata(narHash, { storePath: first }), null)
    catalog.setVouchedBy(narHash, 'signatures')
    catalog.addStorePath(narHash, { ...other(first), vouchedBy: 'signatures' })
    expect(catalog.registrations(narHash)).toHaveLength(1)
    const second = someStorePath('second')
    catalog.addStorePath(narHash, other(second))
    catalog.addStorePath(narHash, other(second))
    expect(catalog.getByStorePath(second)).toEqual(catalog.getByStorePath(first))
    expect(catalog.registrations(narHash)).toEqual([
      { storePath: first, references: [], deriver: null, ca: null, signatures: [], vouchedBy: 'signatures' },
      other(second),
    ])
    catalog.remove(narHash, 'no longer needed')
    expect(catalog.getByStorePath(second)).toBeUndefined()
    expect(catalog.registrations(narHash)).toEqual([])
    expect(codeOf(() => { catalog.addStorePath(narHash, other(second)) })).toBe('not-found')
  })

  test('is believed as this host\'s Nix has it, whatever a peer has said before', async () => {
    const { catalog } = await openCatalog()
    const [path, claimed] = [someStorePath('real'), someStorePath('claimed')]
    const narHash = lead(catalog, 'fetched', 'quarantined')
    catalog.describe(narHash, someMetadata(narHash, { storePath: path, references: [someStorePath('x')], signatures: ['peer:BB=='] }), null)
    catalog.addStorePath(narHash, other(path))
    // What was signed before may be of use to others.
    expect(catalog.get(narHash)).toMatchObject({ ...other(path), signatures: ['k:AA==', 'peer:BB=='] })
    expect(catalog.registrations(narHash)).toHaveLength(1)

    const second = lead(catalog, 'another', 'quarantined')
    catalog.describe(second, someMetadata(second, { storePath: claimed, signatures: ['peer:BB=='] }), null)
    catalog.addStorePath(second, other(path))
    expect(catalog.get(second)).toMatchObject(other(path))
    expect(catalog.registrations(second).map(({ storePath, vouchedBy }) => [storePath, vouchedBy])).toEqual([[path, 'nix'], [claimed, null]])
    // A claim changes nothing about what somebody vouches for.
    catalog.addStorePath(second, { ...other(path), references: [], vouchedBy: null })
    expect(catalog.get(second)).toMatchObject(other(path))
  })

  test('gives way to one that is vouched for at that path, whatever else is vouched for', async () => {
    const { catalog } = await openCatalog()
    const path = someStorePath('same')
    const right = lead(catalog, 'right', 'verified')
    catalog.addStorePath(right, { ...other(path), vouchedBy: 'signatures' })
    const claimant = lead(catalog, 'claimant', 'verified')
    catalog.setVouchedBy(claimant, 'signatures')
    catalog.addStorePath(claimant, { ...other(path), vouchedBy: null })
    expect(catalog.getByStorePath(path)?.narHash.equals(right)).toBe(true)
  })

  test('gives way to a verified one with the same path', async () => {
    const { catalog } = await openCatalog()
    const path = someStorePath('same')
    const verified = lead(catalog, 'verified', 'verified')
    catalog.addStorePath(verified, other(path))
    const wanted = lead(catalog, 'wanted', 'wanted')
    catalog.describe(wanted, someMetadata(wanted, { storePath: path }), null)
    expect(catalog.getByStorePath(path)?.narHash.equals(verified)).toBe(true)
  })
})
