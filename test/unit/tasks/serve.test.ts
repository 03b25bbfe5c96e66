import { chmod, truncate, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { silentLogger } from '../../../src/log.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { presentDetails, presentImage } from '../../../src/tasks/present.ts'
import { checkName, lookUp, requireImage } from '../../../src/tasks/refs.ts'
import { createImageSource } from '../../../src/tasks/serve.ts'
import { withdrawDamaged } from '../../../src/tasks/settle.ts'
import { handleDamage } from '../../../src/tasks/verify-image.ts'
import { expectFailure, failureOf } from '../../helpers/failure.ts'
import { FakeFleet, flipped, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { someHash, WAY_TO } from '../../helpers/images.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'
import { collect } from '../../helpers/trees.ts'
import { STATES } from '../../../src/image/states.ts'

async function serving() {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  const row = await importImage(fleet.context, { path: image.path, name: 'it' })
  const damaged: string[] = []
  const logged: string[] = []
  const source = createImageSource({ ...fleet.context, logger: { ...silentLogger, warn: message => { logged.push(message) } }, onDamage: (_row, reason) => { damaged.push(reason) } })
  const { signal } = new AbortController()
  const read = (offset: number, length: number) => collect(source.read(image.narHash, offset, length, { signal }))
  return { image, fleet, row, source, read, damaged, logged }
}

describe('what peers are served', () => {
  it('is any range of the NAR, byte for byte, and the whole description', async () => {
    const { image, source, read } = await serving()
    expect(await source.describe(image.narHash)).toEqual({ verified: true, metadata: { ...image.metadata, name: 'it' }, manifest: Buffer.from(image.manifest) })
    const range = fc.tuple(fc.nat({ max: image.nar.length }), fc.nat({ max: image.nar.length })).map(([a, b]) => [Math.min(a, b), Math.abs(a - b)] as const)
    await fc.assert(fc.asyncProperty(range, async ([offset, length]) => {
      expect((await read(offset, length)).equals(image.nar.subarray(offset, offset + length))).toBe(true)
    }), { numRuns: 30 })
  })

  // Watches the range (checkRange of nar/layout.ts), and that it is looked at before anything is logged or used (serve.ts).
  it('ends at the end of the NAR, and whoever asks for more leaves no line in the log', async () => {
    const { image, read, damaged, logged } = await serving()
    for (const [offset, length] of [[image.nar.length - 1, 2], [image.nar.length + 1, 0], [Number.MAX_SAFE_INTEGER, 1]] as const) {
      await expectFailure(read(offset, length), 'invalid-argument', /needed a range within/)
    }
    expect([damaged, logged]).toEqual([[], []])
  })

  it('is nothing of an image in any other state than verified', async () => {
    const { fleet, image, source } = await serving()
    const { catalog } = fleet.context
    const { metadata, manifest } = image
    for (const state of STATES.filter(one => one !== 'verified')) {
      const narHash = someHash(state)
      catalog.create({ narHash, source: 'fetch', place: 'content' })
      catalog.describe(narHash, { ...metadata, narHash, name: null }, manifest)
      for (const event of WAY_TO[state]) catalog.transition(narHash, event, { reason: 'so' })
      expect(await source.describe(narHash)).toBeUndefined()
      await expectFailure(collect(source.read(narHash, 0, 10, { signal: new AbortController().signal })), 'not-found', /not verified here/)
      const row = requireImage(catalog, { kind: 'nar-hash', narHash })
      expect(presentImage(fleet.context, row).path).toBeNull()
      expect(JSON.stringify(await presentDetails(fleet.context, row))).not.toContain(fleet.context.content.dataDir)
    }
  })

  it.each([
    ['is shorter', (tree: string) => truncate(join(tree, 'disk'), 10)],
    ['lacks a file', async (tree: string) => { await chmod(tree, 0o755); await unlink(join(tree, 'disk')) }],
  ])('tells of the damage where the tree %s', async (_what, harm) => {
    const { fleet, image, read, damaged } = await serving()
    await harm(fleet.context.content.imageTree(image.narHash))
    await failureOf(read(0, image.nar.length))
    expect(damaged).toHaveLength(1)
  })
})

describe('damage that was seen while an image was served', () => {
  it('takes it out of sight, and judges it again', async () => {
    const { fleet, image, row } = await serving()
    const { catalog, content } = fleet.context
    await truncate(join(content.imageTree(image.narHash), 'disk'), 10)
    handleDamage(fleet.context, row, 'a file is short')
    await vi.waitFor(() => { expect(catalog.get(image.narHash)?.state).toBe('rejected') }, { timeout: PATIENCE_MS })
    expect(fleet.announces(image.narHash)).toBe(false)
  })

  it('that is none leaves it verified, shown and announced', async () => {
    const { fleet, image, row } = await serving()
    const { catalog, jobs } = fleet.context
    handleDamage(fleet.context, row, 'a false alarm')
    handleDamage(fleet.context, row, 'another one')
    await vi.waitFor(() => { expect(jobs.list()).toEqual([]) }, { timeout: PATIENCE_MS })
    expect(catalog.get(image.narHash)?.state).toBe('verified')
    expect(catalog.journal(image.narHash).map(({ event }) => event)).toContain('damage')
    await vi.waitFor(() => { expect(fleet.announces(image.narHash)).toBe(true) })
  })

  it('is no matter once the image is removed or was withdrawn already', async () => {
    const { fleet, image, row } = await serving()
    await withdrawDamaged(fleet.context, row, 'it is damaged')
    handleDamage(fleet.context, row, 'late')
    await vi.waitFor(() => { expect(fleet.context.jobs.list()).toEqual([]) }, { timeout: PATIENCE_MS })
    expect(fleet.context.catalog.get(image.narHash)?.state).toBe('quarantined')
  })
})

describe('a reference', () => {
  it('finds an image by its hash, name and store path, and nothing else', async () => {
    const { fleet, image } = await serving()
    const { catalog } = fleet.context
    expect(lookUp(catalog, { kind: 'nar-hash', narHash: image.narHash })?.name).toBe('it')
    expect(lookUp(catalog, { kind: 'name', name: 'it' })?.narHash.equals(image.narHash)).toBe(true)
    expect(lookUp(catalog, { kind: 'store-path', storePath: '/nix/store/none' })).toBeUndefined()
    expect(() => requireImage(catalog, { kind: 'name', name: 'other' })).toThrow(/Cannot find other: found no such image/)
    expect(() => { checkName(catalog, 'it') }).toThrow(/Cannot use the name it/)
    expect(() => { checkName(catalog, 'it', image.narHash) }).not.toThrow()
  })
})

it('what a rejected image is shown as has its reason and evidence, and no path', async () => {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  await fleet.add('liar', image, { nar: flipped(image.nar, 5000) })
  await failureOf(fetchImage(fleet.context, { ref: { kind: 'nar-hash', narHash: image.narHash } }))
  const { catalog, content } = fleet.context
  const shown = await presentDetails({ catalog, content }, requireImage(catalog, { kind: 'nar-hash', narHash: image.narHash }))
  expect(shown).toMatchObject({ state: 'rejected', path: null, verifiedAt: null, reason: expect.stringContaining('hashes to') as string })
  expect(shown.journal.map(({ to }) => to)).toEqual(['wanted', 'receiving', 'quarantined', 'rejected'])
  expect(JSON.stringify(shown)).not.toContain(content.dataDir)
})
