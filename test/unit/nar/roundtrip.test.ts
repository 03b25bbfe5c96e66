import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeListing, encodeListing } from '../../../src/image/listing-codec.ts'
import { decodeManifest, encodeManifest, manifestDigest } from '../../../src/image/manifest.ts'
import { copyTree } from '../../../src/nar/copy.ts'
import { dumpTree } from '../../../src/nar/dump.ts'
import { chunkTree, hashTree, scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout, narSizeOf } from '../../../src/nar/layout.ts'
import { readRange } from '../../../src/nar/read-range.ts'
import { restoreNar } from '../../../src/nar/restore.ts'
import { sealTree } from '../../../src/nar/seal.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'
import { chunksOfNar } from '../../helpers/chunks.ts'
import { narBytes, nested, regular, type Tree } from '../../helpers/nar-bytes.ts'
import { anyTree, collect, harvest, plant, streamOf, withTemporaryDirectory } from '../../helpers/trees.ts'

const RUNS = process.env['SLOW'] === '1' ? 1000 : 40

/** Checks something of any tree, which lies at `path` and has the NAR `nar`. */
async function forAnyTree(check: (given: { path: string, tree: Tree, nar: Buffer, scratch: (name: string) => string }) => Promise<void>): Promise<void> {
  await fc.assert(fc.asyncProperty(anyTree, tree => withTemporaryDirectory(async directory => {
    const path = join(directory, 'tree')
    plant(path, tree)
    await check({ path, tree, nar: narBytes(tree), scratch: name => join(directory, name) })
  })), { numRuns: RUNS })
}

describe('any tree', () => {
  it('is hashed, dumped and measured as its NAR', async () => {
    await forAnyTree(async ({ path, nar }) => {
      const { narHash, narSize, listing } = await hashTree(path)
      expect(narHash.toHex()).toBe(createHash('sha256').update(nar).digest('hex'))
      expect(narSize).toBe(nar.length)
      expect(narSizeOf(listing)).toBe(nar.length)
      expect((await collect(dumpTree(path))).equals(nar)).toBe(true)
    })
  })

  it('is restored from its NAR, however that is cut', async () => {
    await forAnyTree(async ({ tree, nar, scratch }) => {
      const restored = await restoreNar(streamOf(nar, 1 + nar.length % 977), scratch('restored'))
      expect(restored.narSize).toBe(nar.length)
      expect(restored.narHash.toHex()).toBe(createHash('sha256').update(nar).digest('hex'))
      expect(harvest(scratch('restored'))).toEqual(tree)
    })
  })

  it('gives any range of its NAR through the layout', async () => {
    await forAnyTree(async ({ path, nar }) => {
      const layout = Layout.of(await scanTree(path))
      expect(layout.narSize).toBe(nar.length)
      await fc.assert(fc.asyncProperty(fc.nat({ max: nar.length }), fc.nat({ max: nar.length }), async (one, other) => {
        const [start, end] = [Math.min(one, other), Math.max(one, other)]
        expect((await collect(readRange(path, layout, start, end - start))).equals(nar.subarray(start, end))).toBe(true)
      }), { numRuns: 15 })
    })
  })

  it('is written from ranges in any order, also twice, also over the wrong bytes', async () => {
    await forAnyTree(async ({ tree, nar, scratch }) => {
      const layout = Layout.of(listingOf(tree))
      const path = scratch('written')
      const [cuts] = fc.sample(fc.array(fc.nat({ max: nar.length }), { maxLength: 12 }), 1)
      const edges = [...new Set([0, ...cuts ?? [], nar.length])].sort((a, b) => a - b)
      const ranges = edges.slice(1).map((end, index) => ({ start: edges[index] ?? 0, end })).reverse()
      const first = await TreeWriter.open(path, layout)
      for (const { start, end } of ranges.slice(1)) await first.write(start, falsified(layout, nar, start, end))
      await first.close()
      const second = await TreeWriter.open(path, layout)
      await Promise.all(ranges.map(({ start, end }) => second.write(start, nar.subarray(start, end))))
      await second.sync()
      await second.close()
      expect(harvest(path)).toEqual(tree)
    })
  })

  it('is the same after it was copied and sealed', async () => {
    await forAnyTree(async ({ path, tree, scratch }) => {
      await copyTree(path, scratch('copy'))
      await sealTree(scratch('copy'))
      expect(harvest(scratch('copy'))).toEqual(tree)
    })
  })

  it('has a listing and a manifest that are read back, and one encoding', async () => {
    await forAnyTree(async ({ path, tree, nar }) => {
      const listing = await scanTree(path)
      const bytes = encodeListing(listing)
      expect(encodeListing(listingOf(tree))).toEqual(bytes)
      expect(decodeListing(bytes)).toEqual(listing)
      const { chunks } = await chunkTree(path)
      expect(chunks.columns).toEqual(chunksOfNar(nar).columns)
      const manifest = encodeManifest(listing, chunks)
      const decoded = decodeManifest(manifest)
      expect(encodeManifest(decoded.listing, decoded.chunks)).toEqual(manifest)
      expect(Layout.describedBy(decoded).narSize).toBe(chunks.narSize)
      expect(manifestDigest(manifest)).toMatch(/^[0-9a-f]{64}$/)
    })
  })
})

it('handles the deepest tree with the longest names, whose path no system call would take', async () => {
  await withTemporaryDirectory(async directory => {
    let tree = regular('deep')
    for (let level = 0; level < 63; level++) tree = { kind: 'directory', entries: [{ name: Buffer.alloc(255, 'n'), tree }] }
    const nar = narBytes(tree)
    await restoreNar(streamOf(nar), join(directory, 'deep'))
    expect((await collect(dumpTree(join(directory, 'deep')))).equals(nar)).toBe(true)
    await copyTree(join(directory, 'deep'), join(directory, 'copy'))
    await sealTree(join(directory, 'copy'))
    expect((await hashTree(join(directory, 'copy'))).narHash.toHex()).toBe(createHash('sha256').update(nar).digest('hex'))
  })
})

it('leaves room for zeros unused when it is restored, however the NAR is cut', async () => {
  await withTemporaryDirectory(async directory => {
    const tree = regular(Buffer.concat([Buffer.from('here'), Buffer.alloc(8 << 20), Buffer.from('there')]))
    const nar = narBytes(tree)
    for (const size of [4096, 10_007, 65_536]) {
      const file = join(directory, String(size))
      await restoreNar(streamOf(nar, size), file)
      expect(readFileSync(file).equals(Buffer.concat([Buffer.from('here'), Buffer.alloc(8 << 20), Buffer.from('there')]))).toBe(true)
      expect(statSync(file).blocks * 512).toBeLessThanOrEqual(16 * 1024)
    }
  })
})

it('refuses a tree of 65 levels, and says where', async () => {
  await withTemporaryDirectory(async directory => {
    plant(join(directory, 'deep'), nested(64, regular('x')))
    await expect(hashTree(join(directory, 'deep'))).rejects.toMatchObject({ code: 'refused', message: expect.stringMatching(/deep(\/d){64}: found an entry at depth 64/) as string })
  })
})

function listingOf(tree: Tree): ReturnType<typeof decodeListing> {
  return decodeListing(encodedListing(tree))
}

/** The encoding of a listing, written down a second time. */
function encodedListing(tree: Tree): Buffer {
  return Buffer.concat([Buffer.of(1), encodedNode(tree, Buffer.alloc(0))])
}

function encodedNode(tree: Tree, name: Buffer): Buffer {
  switch (tree.kind) {
    case 'directory': return Buffer.concat([Buffer.of(1), name, ...tree.entries.map(entry => encodedNode(entry.tree, counted(entry.name))), Buffer.of(0)])
    case 'regular': return Buffer.concat([Buffer.of(tree.executable ? 3 : 2), name, varint(tree.contents.length)])
    case 'symlink': return Buffer.concat([Buffer.of(4), name, counted(tree.target)])
  }
}

function counted(bytes: Uint8Array): Buffer {
  return Buffer.concat([varint(bytes.length), bytes])
}

function varint(value: number): Buffer {
  return value < 128 ? Buffer.of(value) : Buffer.concat([Buffer.of(value % 128 + 128), varint(Math.floor(value / 128))])
}

/** A range of the NAR with every byte of contents wrong. */
function falsified(layout: Layout, nar: Buffer, start: number, end: number): Buffer {
  const bytes = Buffer.from(nar.subarray(start, end))
  let at = 0
  for (const segment of layout.segments(start, end - start)) {
    const length = segment.kind === 'frame' ? segment.bytes.length : segment.length
    if (segment.kind === 'contents') for (let index = at; index < at + length; index++) bytes[index] = (bytes[index] ?? 0) ^ 0xff
    at += length
  }
  return bytes
}
