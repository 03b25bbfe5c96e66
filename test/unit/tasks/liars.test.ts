import { open, readdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { decodeManifest, encodeManifest, manifestDigest } from '../../../src/image/manifest.ts'
import type { Evidence } from '../../../src/image/verdict.ts'
import { MIN_FOLLOWED_BYTES } from '../../../src/limits.ts'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { NarvikError } from '../../../src/errors.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, flipped, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'
import { directory, regular, type Tree } from '../../helpers/nar-bytes.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

/** A tree that can't be read back. */
const disk = vi.hoisted((): { failing: string | undefined } => ({ failing: undefined }))
vi.mock(import('../../../src/nar/read-range.ts'), async original => {
  const { readRange, ...rest } = await original()
  return {
    ...rest,
    readRange: (...args: Parameters<typeof readRange>) => {
      if (args[0] === disk.failing) throw new NarvikError('io-error', `Cannot read ${args[0]}: found EIO, needed a disk that works`)
      return readRange(...args)
    },
  }
})

const HALF = 160 * 1024
const refOf = ({ narHash }: TestImage) => ({ ref: { kind: 'nar-hash' as const, narHash } })
const breakOffAt = (end: number) => (offset: number): void => { if (offset >= end) throw new Error('gone') }

function evidenceOf({ context }: FakeFleet, { narHash }: TestImage, to: 'rejected' | 'verified'): Evidence[] {
  return context.catalog.journal(narHash).flatMap(entry => entry.to === to && entry.evidence !== null ? [entry.evidence] : [])
}

const outcomes = (evidence: Evidence | undefined): string[][] => (evidence?.peers ?? []).map(({ peerId, outcome }) => [peerId, outcome])

async function expectHidden(fleet: FakeFleet, image: TestImage): Promise<void> {
  const { content, catalog } = fleet.context
  expect(fleet.announces(image.narHash)).toBe(false)
  const row = catalog.get(image.narHash)
  expect(row && content.visiblePath(row)).toBeNull()
  expect(await readdir(join(content.dataDir, 'images'))).toEqual([])
  expect(await readdir(join(content.dataDir, 'by-name'))).toEqual([])
}

describe('a peer that sends one wrong byte', () => {
  it('is banned and named, and the image is rejected with both hashes', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, 100_000) })
    await expectFailure(fetchImage(fleet.context, { ...refOf(image), name: 'bad' }), 'verification-failed', /the tree hashes to sha256-.*, not to sha256-/)
    expect([...fleet.banned.keys()]).toEqual(['liar'])
    const [evidence] = evidenceOf(fleet, image, 'rejected')
    expect(outcomes(evidence)).toEqual([['liar', 'lied']])
    const judge = evidence?.verdict?.stages.find(({ stage }) => stage === 'nar-hash')
    expect(judge).toMatchObject({ verdict: 'fail', expected: image.narHash.toSri() })
    expect(judge?.found).not.toBe(image.narHash.toSri())
    await expectHidden(fleet, image)
  })

  it('costs nothing but time where an honest one is there', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, 100_000) })
    const honest = await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).toEqual(['liar'])
    expect(outcomes(evidenceOf(fleet, image, 'rejected')[0])).toEqual([['liar', 'lied']])
    expect(outcomes(evidenceOf(fleet, image, 'verified')[0])).toEqual([['honest', 'used'], ['liar', 'lied']])
    expect(honest.asked).toEqual([0])
  })

  it.each([
    ['began', 'first', 10_000],
    ['went on', 'second', 250_000],
  ])('is told from an honest one that took part, where it %s', async (_when, liar, at) => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const first = await fleet.add('first', image, { before: breakOffAt(HALF), ...(liar === 'first' && { nar: flipped(image.nar, at) }) })
    const second = await fleet.add('second', image, { ...(liar === 'second' && { nar: flipped(image.nar, at) }) })
    // The first one comes back once the second one was asked, so that both can be heard alone.
    second.habit = { ...second.habit, before: () => { first.habit = { ...first.habit, before: () => undefined } } }
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).toEqual([liar])
    const [mixed] = evidenceOf(fleet, image, 'rejected')
    expect(outcomes(mixed)).toEqual([['first', 'discarded'], ['second', 'discarded']])
    expect(mixed?.notes).toEqual(['One of first, second lied; which one is not known yet'])
  })

  it('is not confused with a byte that this host\'s disk has changed', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { content } = fleet.context
    const disk = join(content.quarantineTree(image.narHash), 'disk')
    const honest = await fleet.add('honest', image, { before: breakOffAt(HALF) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /honest/)
    await flipOnDisk(disk, 5000)
    honest.habit = {}
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /hashes to/)
    expect([...fleet.banned]).toEqual([])
    const [evidence] = evidenceOf(fleet, image, 'rejected')
    expect(evidence?.notes).toEqual([expect.stringContaining('the disk or the memory of this host')])
    expect(outcomes(evidence)).toEqual([['honest', 'discarded']])
    // Asked again, it starts over and passes.
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })
})

describe('a fault of this host', () => {
  // Guard: `isHostAtFault` in blame.ts and fetch-image.ts. What this disk has spoilt is asked of no further provider in its place: that would bring the same disk the whole image again.
  it('that spoils what has come, has nobody send the image once more, and bans nobody', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const honest = await fleet.add('honest', image, { before: breakOffAt(HALF) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /honest/)
    await flipOnDisk(join(fleet.context.content.quarantineTree(image.narHash), 'disk'), 5000)
    honest.habit = {}
    const other = await fleet.add('other', image)
    const before = honest.asked.length
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /hashes to/)
    const asked = [...honest.asked.slice(before), ...other.asked]
    expect(asked).toHaveLength(1)
    expect(asked[0]).toBeGreaterThan(0)
    expect([...fleet.banned]).toEqual([])
  })

  // Guards: only a NAR that contradicts its manifest is laid at a peer's door (attempt.ts, swarm/attempt.ts), and what can't be read to compare is no difference (blame.ts).
  it.each([
    ['when it writes, in one stream', 300_000, 'disk-full', 'ENOSPC'],
    ['when it writes, in one stream', 300_000, 'io-error', 'EIO'],
    ['when it writes, in chunks', MIN_FOLLOWED_BYTES, 'disk-full', 'ENOSPC'],
    ['when it writes, in chunks', MIN_FOLLOWED_BYTES, 'io-error', 'EIO'],
  ] as const)('%s (%i bytes: %s), ends the fetch, and neither blames nor bans who sends', async (_when, size, code, errno) => {
    const image = await makeImage(someTree(size))
    const fleet = await FakeFleet.start()
    await fleet.add('honest', image)
    const write = vi.spyOn(TreeWriter.prototype, 'write').mockImplementation(() => Promise.reject(new NarvikError(code, `Cannot write: found ${errno}, needed a disk that works`)))
    await expectFailure(fetchImage(fleet.context, refOf(image)), code, new RegExp(errno))
    expect(write).toHaveBeenCalled()
    write.mockRestore()
    expect([...fleet.banned]).toEqual([])
    const blamed = fleet.context.catalog.journal(image.narHash).flatMap(({ evidence }) => evidence?.peers ?? []).filter(({ outcome }) => outcome === 'lied')
    expect(blamed).toEqual([])
    // The peer is as good as before.
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })

  it('when it reads back what it has to compare, bans nobody', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { content } = fleet.context
    await fleet.add('liar', image, { nar: flipped(image.nar, 100_000) })
    const tree = content.quarantineTree(image.narHash)
    disk.failing = tree
    try {
      await expectFailure(fetchImage(fleet.context, refOf(image)), 'io-error', /EIO/)
    } finally {
      disk.failing = undefined
    }
    expect([...fleet.banned]).toEqual([])
    // What it is, is seen when the disk can be read.
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /hashes to/)
    expect([...fleet.banned.keys()]).toEqual(['liar'])
  })
})

async function flipOnDisk(file: string, at: number): Promise<void> {
  const handle = await open(file, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, at)
  await handle.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at)
  await handle.close()
}

describe('a rejected image', () => {
  it('is received anew when it is asked for again', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const peer = await fleet.add('peer', image, { nar: flipped(image.nar, 100_000) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /hashes to/)
    fleet.banned.clear()
    peer.habit = {}
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(peer.asked).toEqual([0, 0])
  })
})

describe('framing that contradicts the manifest', () => {
  it('rejects what came, and bans who sent it', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, 8) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /hashes to/)
    expect([...fleet.banned.keys()]).toEqual(['liar'])
    expect(evidenceOf(fleet, image, 'rejected')[0]?.notes?.[0]).toMatch(/at byte 8, found/)
  })

  it('at the very end leaves a good tree, and bans who sent it', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, image.nar.length - 1) })
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).toEqual(['liar'])
  })

  it('of a peer that went on is not laid at the door of the one that began', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const first = await fleet.add('first', image, { before: breakOffAt(HALF) })
    const liar = await fleet.add('liar', image, { nar: flipped(image.nar, image.nar.length - 200) })
    liar.habit = { ...liar.habit, before: () => { first.habit = {} } }
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).not.toContain('first')
  })
})

describe('a peer whose words disagree', () => {
  const lies: [string, Parameters<FakeFleet['add']>[2], RegExp][] = [
    ['metadata and manifest, of the size', { metadata: { narSize: 1 } }, /its metadata says 1 bytes and its manifest/],
    ['metadata and manifest, of the digest', { metadata: { manifestDigest: 'a'.repeat(64) } }, /its metadata names manifest aaaa/],
    ['record and manifest, of the size', { record: { narSize: 1 } }, /its DHT record says 1 bytes and its manifest/],
    ['record and manifest, of the digest', { record: { manifestDigest: 'b'.repeat(64) } }, /its DHT record names manifest bbbb/],
    ['no manifest', { manifest: new Uint8Array() }, /Cannot read a manifest/],
    ['a manifest that is none', { manifest: Buffer.from('NARVIKMF\x01\x01\x05junk!') }, /Cannot/],
  ]
  it.each(lies)('(%s) is left for the next one', async (_what, habit, reason) => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const liar = await fleet.add('liar', image, habit)
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', reason)
    expect(liar.asked).toEqual([])
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })

  it('about the room that is needed does not keep the honest one from being asked', async () => {
    const image = await makeImage(someTree())
    const huge = await makeImage(regular('tiny'))
    const fleet = await FakeFleet.start()
    const { content } = fleet.context
    const taken = await content.freeBytes()
    const free = [0, taken]
    content.freeBytes = () => Promise.resolve(free.shift() ?? taken)
    await fleet.add('greedy', image, { manifest: huge.manifest, metadata: { narSize: huge.nar.length, manifestDigest: huge.metadata.manifestDigest }, record: { narSize: huge.nar.length, manifestDigest: String(huge.metadata.manifestDigest) } })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })
})

describe('a manifest of another tree', () => {
  const vouched = (other: TestImage) => ({
    manifest: other.manifest,
    metadata: { narSize: other.nar.length, manifestDigest: other.metadata.manifestDigest },
    record: { narSize: other.nar.length, manifestDigest: String(other.metadata.manifestDigest) },
  })

  it('bans who vouched for it, though its bytes fit it', async () => {
    const [image, other] = [await makeImage(someTree(300_000, 7)), await makeImage(someTree(200_000, 9))]
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { ...vouched(other), nar: other.nar })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).toEqual(['liar'])
  })

  it('does not make a liar of who sends the true bytes', async () => {
    // Only the framing tells the two apart.
    const tree = { kind: 'regular' as const, contents: Buffer.alloc(300_000, 'x') }
    const [image, other] = [await makeImage({ ...tree, executable: false }), await makeImage({ ...tree, executable: true })]
    const fleet = await FakeFleet.start()
    await fleet.add('voucher', image, { ...vouched(other), before: breakOffAt(0) })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned]).toEqual([['voucher', expect.stringContaining('it vouched for manifest')]])
  })
})

describe('a manifest with a forged chunk', () => {
  async function forged(image: TestImage): Promise<TestImage> {
    const { listing, chunks } = decodeManifest(image.manifest)
    chunks.hash(0).fill(1)
    const manifest = encodeManifest(listing, chunks)
    return Promise.resolve({ ...image, manifest, metadata: { ...image.metadata, manifestDigest: manifestDigest(manifest) } })
  }

  it('bans who vouched for it, and not who sent the true bytes of the image', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const lie = await forged(image)
    await fleet.add('voucher', lie, { before: breakOffAt(0) })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned]).toEqual([['voucher', expect.stringContaining('it vouched for manifest')]])
    expect(outcomes(evidenceOf(fleet, image, 'rejected')[0])).toEqual([['honest', 'discarded'], ['voucher', 'lied']])
  })
})

describe('an image that is hashed while it is received', () => {
  it('is verified without being read again', async () => {
    const image = await makeImage(someTree(MIN_FOLLOWED_BYTES))
    const fleet = await FakeFleet.start()
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(evidenceOf(fleet, image, 'verified')[0]?.verdict?.stages[0]?.detail).toMatch(/read behind those that came/)
  })

  it('is read again as a whole where this host\'s disk has changed a byte of it meanwhile, and only that chunk comes again', async () => {
    const image = await makeImage(twoFiles(MIN_FOLLOWED_BYTES))
    const fleet = await FakeFleet.start()
    const { chunks } = decodeManifest(image.manifest)
    const last = chunks.count - 1
    const butLast = ChunkSet.full(chunks.count)
    butLast.delete(last)
    const onlyLast = new ChunkSet(chunks.count)
    onlyLast.add(last)
    const most = await fleet.add('most', image, { have: butLast })
    await fleet.add('rest', image, { have: onlyLast, before: async () => {
      // Nothing is written to the first file any more.
      await vi.waitFor(() => { expect(fleet.context.jobs.find(image.narHash)?.progress.bytes).toBe(chunks.offset(last)) }, PATIENCE_MS)
      await alter(join(fleet.context.content.quarantineTree(image.narHash), 'disk'))
    } })
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned]).toEqual([])
    const [evidence] = evidenceOf(fleet, image, 'rejected')
    expect(evidence?.verdict?.stages[0]?.detail).not.toMatch(/read behind/)
    expect(evidence?.notes).toEqual([expect.stringMatching(/^1 chunks on disk .* this host is to blame/)])
    expect(most.sent).toHaveLength(chunks.count)
  })

  /** Changes a byte, a moment later than whoever wrote to the file last, as the file system counts moments. */
  async function alter(file: string): Promise<void> {
    const handle = await open(file, 'r+')
    const before = (await handle.stat()).ctimeMs
    while ((await handle.stat()).ctimeMs === before) await handle.write(Buffer.from([0xee]), 0, 1, 5000)
    await handle.close()
  }
})

/** A tree of two files, each of half the size. */
function twoFiles(size: number): Tree {
  return directory(['disk', 'other'].map((name, seed) => ({ name: Buffer.from(name), tree: regular(randomOf(seed + 1, size / 2)) })))
}

it('a tree that was cut short on this host\'s disk is no peer\'s fault', async () => {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  const { content } = fleet.context
  const peer = await fleet.add('honest', image, { before: breakOffAt(HALF) })
  await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /honest/)
  peer.habit = { before: async offset => { if (offset >= image.nar.length - 20_000) await truncate(join(content.quarantineTree(image.narHash), 'disk'), 1000) } }
  await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /.+/)
  expect([...fleet.banned]).toEqual([])
  expect(fleet.context.catalog.get(image.narHash)?.state).toBe('rejected')
})
