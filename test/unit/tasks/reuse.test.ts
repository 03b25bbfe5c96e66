import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { isZeroChunk } from '../../../src/image/zero-chunk.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { readRange } from '../../../src/nar/read-range.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { reuseLocal } from '../../../src/tasks/reuse.ts'
import { FakeFleet, makeImage, type TestImage } from '../../helpers/fake-fleet.ts'
import { directory, regular, symlink, type Tree } from '../../helpers/nar-bytes.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { collect } from '../../helpers/trees.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

const MIB = 1024 * 1024
const OLD = Buffer.concat([randomOf(1, 2 * MIB), Buffer.alloc(MIB), randomOf(2, MIB)])

/** What the next version of a disk is like: a part rewritten, something inserted, zeros, and twice the same part. */
const NEW = Buffer.concat([OLD.subarray(0, MIB), randomOf(3, 100_000), OLD.subarray(MIB + 100_000), Buffer.alloc(2 * MIB), Buffer.from('inserted'), OLD.subarray(0, MIB)])

const diskOf = (contents: Buffer): Tree => directory([{ name: Buffer.from('disk'), tree: regular(contents) }, { name: Buffer.from('link'), tree: symlink('disk') }])

describe('what images of this host have of another one', () => {
  it('is copied, every place of it, and zeros are neither read nor written', async () => {
    const fleet = await hostWith(diskOf(OLD))
    const wanted = await makeImage(diskOf(NEW))
    const { proven, tree, chunks, layout } = await reuse(fleet, wanted)
    const old = hashesOf(await makeImage(diskOf(OLD)))
    for (let chunk = 0; chunk < chunks.count; chunk++) {
      const expected = isZeroChunk(chunks, chunk) ? 'zeros' : old.has(keyOf(chunks.hash(chunk))) ? 'local' : undefined
      expect([chunk, proven.get(chunk)]).toEqual([chunk, expected])
      if (expected === undefined) continue
      const bytes = await collect(readRange(tree, layout, chunks.offset(chunk), chunks.length(chunk)))
      expect(bytes.equals(wanted.nar.subarray(chunks.offset(chunk), chunks.offset(chunk + 1)))).toBe(true)
    }
    const bytesOf = (source: string): number => [...proven].reduce((sum, [chunk, from]) => from === source ? sum + chunks.length(chunk) : sum, 0)
    expect(bytesOf('local')).toBeGreaterThan(3 * MIB)
    expect(bytesOf('zeros')).toBeGreaterThan(1.5 * MIB)
    expect((await stat(join(tree, 'disk'))).blocks * 512).toBeLessThan(bytesOf('local') + 64 * 1024)
  })

  it('is right whatever the two have in common', async () => {
    const part = fc.record({ seed: fc.integer({ min: 1, max: 4 }), length: fc.constantFrom(1, 5000, 100_000, 400_000), isZero: fc.boolean() })
    const contents = fc.array(part, { minLength: 1, maxLength: 5 }).map(parts => Buffer.concat(parts.map(({ seed, length, isZero }) => isZero ? Buffer.alloc(3 * length) : randomOf(seed, length))))
    await fc.assert(fc.asyncProperty(contents, contents, async (before, after) => {
      const local = await makeImage(diskOf(before))
      const fleet = await FakeFleet.start()
      await importImage(fleet.context, { path: local.path })
      const wanted = await makeImage(diskOf(after))
      const { proven, tree, chunks, layout } = await reuse(fleet, wanted)
      const old = hashesOf(local)
      for (let chunk = 0; chunk < chunks.count; chunk++) {
        expect(proven.has(chunk)).toBe(isZeroChunk(chunks, chunk) || old.has(keyOf(chunks.hash(chunk))))
        if (!proven.has(chunk)) continue
        const bytes = await collect(readRange(tree, layout, chunks.offset(chunk), chunks.length(chunk)))
        expect(bytes.equals(wanted.nar.subarray(chunks.offset(chunk), chunks.offset(chunk + 1)))).toBe(true)
      }
    }), { numRuns: 8 })
  })

  it('is only what is missing', async () => {
    const fleet = await hostWith(diskOf(OLD))
    const { proven } = await reuse(fleet, await makeImage(diskOf(NEW)), { isMissing: chunk => chunk === 3 })
    expect([...proven]).toEqual([[3, 'local']])
  })

  it('is not taken from a damaged image, which is withdrawn, but from another one that has it', async () => {
    const fleet = await hostWith(diskOf(OLD), regular(OLD))
    const { catalog, content } = fleet.context
    // Of the two the newer one is looked at first.
    const [damaged] = catalog.list({ state: 'verified' }).sort((a, b) => (b.verifiedAt?.getTime() ?? 0) - (a.verifiedAt?.getTime() ?? 0))
    if (damaged === undefined) throw new Error('nothing was imported')
    await overwrite(content.imageTree(damaged.narHash), MIB / 2)
    const wanted = await makeImage(diskOf(NEW))
    const { proven, tree, chunks, layout } = await reuse(fleet, wanted)
    for (const chunk of proven.keys()) {
      const bytes = await collect(readRange(tree, layout, chunks.offset(chunk), chunks.length(chunk)))
      expect(bytes.equals(wanted.nar.subarray(chunks.offset(chunk), chunks.offset(chunk + 1)))).toBe(true)
    }
    const place = chunks.at(layout.contentsOffset(1) + MIB / 2)
    expect(proven.get(place)).toBe('local')
    await vi.waitFor(() => { expect(catalog.get(damaged.narHash)?.state).toBe('rejected') }, PATIENCE_MS)
  })

  it('is made of zeros also where something else was written before', async () => {
    const wanted = await makeImage(diskOf(NEW))
    const fleet = await FakeFleet.start()
    const root = join(await temporaryDirectory(), 'root')
    const first = await TreeWriter.open(root, layoutOf(wanted))
    await first.close()
    await overwrite(root, 2 * MIB + 400_000)
    const { proven, chunks, layout } = await reuse(fleet, wanted, { root })
    expect(proven.size).toBeGreaterThan(0)
    for (const chunk of proven.keys()) {
      const bytes = await collect(readRange(root, layout, chunks.offset(chunk), chunks.length(chunk)))
      expect(bytes.equals(Buffer.alloc(chunks.length(chunk)))).toBe(true)
    }
  })
})

/** A host that has these images, the first one imported first. */
async function hostWith(...trees: Tree[]): Promise<FakeFleet> {
  const fleet = await FakeFleet.start()
  for (const tree of trees) await importImage(fleet.context, { path: (await makeImage(tree)).path })
  return fleet
}

async function reuse(fleet: FakeFleet, image: TestImage, { isMissing = () => true, root }: { isMissing?: (chunk: number) => boolean, root?: string } = {}) {
  const tree = root ?? join(await temporaryDirectory(), 'root')
  const layout = layoutOf(image)
  const { chunks } = decodeManifest(image.manifest)
  const writer = await TreeWriter.open(tree, layout)
  const proven = new Map<number, 'zeros' | 'local'>()
  await reuseLocal(fleet.context, {
    narHash: image.narHash, layout, chunks, writer,
    isMissing: chunk => isMissing(chunk) && !proven.has(chunk),
    onProven: (chunk, source) => { proven.set(chunk, source === 'zeros' ? 'zeros' : 'local') },
    signal: new AbortController().signal,
  })
  await writer.close()
  return { proven, tree, layout, chunks }
}

function layoutOf({ manifest }: TestImage): Layout {
  return Layout.describedBy(decodeManifest(manifest))
}

function keyOf(hash: Uint8Array): string {
  return Buffer.from(hash).toString('hex')
}

function hashesOf({ manifest }: TestImage): Set<string> {
  const { chunks } = decodeManifest(manifest)
  return new Set(Array.from({ length: chunks.count }, (_, chunk) => keyOf(chunks.hash(chunk))))
}

/** Writes some bytes at an offset of the disk, whether it lies in a directory or is the tree, and whether or not it is sealed. */
async function overwrite(tree: string, position: number): Promise<void> {
  const file = (await stat(tree)).isDirectory() ? join(tree, 'disk') : tree
  const handle = await open(file, 'r')
  await handle.chmod(0o644)
  await handle.close()
  const writable = await open(file, 'r+')
  await writable.write(Buffer.alloc(1000, 0xa5), 0, 1000, position)
  await writable.close()
}
