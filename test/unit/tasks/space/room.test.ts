import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { describe, expect, it, vi } from 'vitest'
import { ChunkList } from '../../../../src/image/chunk-list.ts'
import { ChunkSet } from '../../../../src/image/chunk-set.ts'
import { decodeManifest, encodeManifest } from '../../../../src/image/manifest.ts'
import { diskBytesOf, measureTree } from '../../../../src/nar/disk-usage.ts'
import { Layout } from '../../../../src/nar/layout.ts'
import { fetchImage } from '../../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../../src/tasks/import-image.ts'
import { Job } from '../../../../src/tasks/jobs.ts'
import { claimRoom } from '../../../../src/tasks/space/claim-room.ts'
import { describeUsage } from '../../../../src/tasks/usage.ts'
import { expectFailure } from '../../../helpers/failure.ts'
import { FakeFleet, makeImage, type TestImage } from '../../../helpers/fake-fleet.ts'
import { someHash } from '../../../helpers/images.ts'
import { directory, regular } from '../../../helpers/nar-bytes.ts'

const MIB = 1024 * 1024
const { signal } = new AbortController()
const SETTINGS = { quotaBytes: null, minFreeBytes: 0, minCopies: 0 }
const refOf = ({ narHash }: TestImage) => ({ ref: { kind: 'nar-hash' as const, narHash } })
/** What a quarantine takes besides the tree. */
const BESIDES = 64 * 1024

/** A disk of some data, a long run of zeros that ends in the middle of a block, and some data more. */
const sparse = (zeros = 6 * MIB + 1000) => makeImage(directory([
  { name: Buffer.from('disk'), tree: regular(Buffer.concat([randomBytes(MIB), Buffer.alloc(zeros), randomBytes(MIB)])) },
  { name: Buffer.from('note'), tree: regular('small') },
]))

async function host(dataDir?: string) {
  const fleet = await FakeFleet.start({ settings: { stallMs: 1000 }, ...dataDir !== undefined && { dataDir } })
  fleet.space.configure(SETTINGS)
  const quotaWith = async (room: number): Promise<void> => {
    fleet.space.configure({ ...SETTINGS, quotaBytes: (await describeUsage(fleet.context, { signal })).usedBytes + room })
  }
  return { fleet, context: fleet.context, space: fleet.space, quotaWith }
}

/** What a fetch claims for an image of which it lacks some chunks. */
async function claimOf({ manifest, narHash }: TestImage, isMissing?: (chunk: number) => boolean): Promise<{ bytes: number, missing: number | undefined }> {
  const decoded = decodeManifest(manifest)
  let claimed: { bytes: number, missing: number | undefined } | undefined
  const space = { claim: (_key: string, bytes: number, { missing }: { missing?: number }) => {
    claimed = { bytes, missing }
    return Promise.resolve()
  } }
  await claimRoom({ space } as never, new Job('test', narHash, () => Promise.resolve()), { layout: Layout.describedBy(decoded), chunks: decoded.chunks }, isMissing)
  if (claimed === undefined) throw new Error('nothing was claimed')
  return claimed
}

describe('the room that an image claims', () => {
  it('is no less than what it takes, and without its long runs of zeros', async () => {
    const image = await sparse()
    const { bytes } = await claimOf(image)
    const { fleet } = await host()
    await fleet.add('peer', image)
    await fetchImage(fleet.context, refOf(image))
    const { diskBytes } = await measureTree(fleet.context.content.imageTree(image.narHash))
    expect(diskBytes).toBeLessThan(3 * MIB)
    expect(bytes).toBeGreaterThanOrEqual(diskBytes)
    // At either end of the zeros is a chunk that is not all zeros.
    expect(bytes).toBeLessThan(diskBytes + 2 * 256 * 1024)
  })

  it('is that of what is missing, where some is here', async () => {
    const image = await makeImage(regular(randomBytes(3 * MIB)))
    const { chunks } = decodeManifest(image.manifest)
    const half = chunks.count >> 1
    expect(await claimOf(image, () => false)).toMatchObject({ missing: 0 })
    const { bytes, missing = 0 } = await claimOf(image, chunk => chunk >= half)
    expect(missing).toBeGreaterThanOrEqual(chunks.narSize - chunks.offset(half) - 1000)
    expect(missing).toBeLessThan(bytes - chunks.offset(half) + 2 * 4096)
    const whole = await claimOf(image, () => true)
    expect(whole.missing).toBe(whole.bytes)
  })

  it('is that of all where its chunks are not listed', async () => {
    const image = await sparse()
    const { listing } = decodeManifest(image.manifest)
    const unlisted = { ...image, manifest: encodeManifest(listing, ChunkList.none()) }
    expect(await claimOf(unlisted, () => true)).toEqual({ bytes: diskBytesOf(listing), missing: undefined })
  })

  it('lets a sparse image in that fits without its holes, and no other', async () => {
    const image = await sparse()
    const { fleet, quotaWith } = await host()
    const peer = await fleet.add('peer', image)
    await quotaWith(MIB)
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'over-quota', /Cannot take [\d.]+ [KM]iB more/)
    expect(peer.sent).toEqual([])
    await quotaWith(3 * MIB)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })

  it('is asked of the disk without what is there already, after a restart', async () => {
    const image = await makeImage(regular(randomBytes(3 * MIB)))
    const { chunks: { count } } = decodeManifest(image.manifest)
    const most = new ChunkSet(count)
    for (let chunk = 0; chunk < count - 4; chunk++) most.add(chunk)
    const first = await host()
    await first.fleet.add('one', image, { have: most })
    await expectFailure(fetchImage(first.context, refOf(image)), 'no-provider', /needed a provider/)
    const { dataDir } = first.context.content
    first.context.content.close()
    first.context.catalog.close()

    const again = await host(dataDir)
    await again.fleet.add('two', image)
    vi.spyOn(again.context.content, 'freeBytes').mockResolvedValue(4 * 256 * 1024 + BESIDES)
    expect((await fetchImage(again.context, refOf(image))).state).toBe('verified')
  })

  it('on the disk is given to nobody twice, until it is written', async () => {
    const { context, space } = await host()
    vi.spyOn(context.content, 'freeBytes').mockResolvedValue(5 * MIB)
    const narHash = someHash(1)
    await space.claim(narHash.toNix32(), 3 * MIB, { signal })
    await expectFailure(space.claim('other', 3 * MIB, { signal }), 'disk-full', /found 5.0 MiB free in the data directory, 3.0 MiB of them promised to others, needed 3.0 MiB/)
    await space.claim('small', MIB, { signal })
    space.release('small')
    // What has come is no longer promised: that it is not free either the disk says.
    await context.content.begin(narHash)
    await writeFile(context.content.quarantineTree(narHash), randomBytes(3 * MIB))
    await space.claim('other', 3 * MIB, { signal })
  })

  it('is looked at again while much of it is copied from images of this host', async () => {
    const { fleet, context, space } = await host()
    const old = randomBytes(10 * MIB)
    await importImage(context, { path: (await makeImage(regular(old))).path })
    const image = await makeImage(regular(Buffer.concat([old, randomBytes(1000)])))
    const peer = await fleet.add('peer', image)
    const check = vi.spyOn(space, 'check').mockImplementation(() => {
      expect(peer.sent).toEqual([])
      return Promise.resolve()
    })
    await fetchImage(context, refOf(image))
    expect(check).toHaveBeenCalled()
  })
})
