import { access } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import type { NarHash } from '../../../../src/image/nar-hash.ts'
import { silentLogger } from '../../../../src/log.ts'
import { createChunkSource } from '../../../../src/tasks/chunk-source.ts'
import { exportImage } from '../../../../src/tasks/export-image.ts'
import { fetchImage } from '../../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../../src/tasks/import-image.ts'
import { pinImage } from '../../../../src/tasks/pin-image.ts'
import { createClosureSource, createImageSource } from '../../../../src/tasks/serve.ts'
import { standing } from '../../../../src/tasks/space/copies.ts'
import type { SpaceSettings } from '../../../../src/tasks/space/space.ts'
import { describeUsage } from '../../../../src/tasks/usage.ts'
import { expectFailure } from '../../../helpers/failure.ts'
import { FakeFleet, flipped, gate, makeImage, someTree, type TestImage } from '../../../helpers/fake-fleet.ts'
import { randomOf } from '../../../vectors/fastcdc/inputs.ts'
import { temporaryDirectory } from '../../../helpers/temporary.ts'
import { collect } from '../../../helpers/trees.ts'

const { signal } = new AbortController()
const SETTINGS: SpaceSettings = { quotaBytes: null, minFreeBytes: 0, minCopies: 0 }
const SIZE = 300_000
/** More than one of the images takes, less than two. */
const ROOM_FOR_ONE = 400_000

/** A host that is alone and lets every copy go, with images of about SIZE bytes. */
async function hostWith(...names: string[]) {
  const fleet = await FakeFleet.start()
  const { context, space } = fleet
  space.configure(SETTINGS)
  const images: TestImage[] = []
  for (const [index, name] of names.entries()) {
    const image = await makeImage(someTree(SIZE, 3 + 2 * index))
    images.push(image)
    await importImage(context, { path: image.path, ...(name === '' ? {} : { name }) })
  }
  const stateOf = ({ narHash }: TestImage) => context.catalog.get(narHash)?.state
  const gc = (need: number | 'all' = 'all', dryRun = false) => space.collect({ need, dryRun, signal })
  /** The quota that has room for `room` bytes more. */
  const quotaWith = async (room: number): Promise<number> => (await describeUsage(context, { signal })).usedBytes + room
  return { fleet, context, space, images, stateOf, gc, quotaWith }
}

/** A peer id that comes before, or after, this host in the order of an image. */
function peerThatComes(where: 'before' | 'after', narHash: NarHash): string {
  for (let number = 0; ; number++) {
    const peerId = `peer-${number}`
    if (standing(narHash, peerId) < standing(narHash, 'this-host') === (where === 'before')) return peerId
  }
}

/** Has something happen when this host has withdrawn its announcement. */
function onWithdraw({ node: { router } }: FakeFleet['context'], happen: () => void): void {
  const withdraw = router.withdraw.bind(router)
  router.withdraw = async (narHash, options) => {
    await withdraw(narHash, options)
    happen()
  }
}

describe('a collection', () => {
  it('takes what has no name, oldest first, and leaves no trace but the journal', async () => {
    const { images: [old, named, young], gc, stateOf, context, fleet } = await hostWith('', 'web', '') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage, TestImage, TestImage] }
    const { collected, freedBytes, kept } = await gc()
    expect(collected.map(({ narHash }) => narHash.toSri())).toEqual([old, young].map(({ narHash }) => narHash.toSri()))
    expect(freedBytes).toBeGreaterThan(2 * SIZE)
    expect([kept, stateOf(old), stateOf(named), stateOf(young)]).toEqual([[], undefined, 'verified', undefined])
    expect(context.catalog.journal(old.narHash).at(-1)).toMatchObject({ event: 'remove', reason: expect.stringMatching(/^collected: last used /) as string })
    await expect(access(context.content.imageTree(old.narHash))).rejects.toThrow('ENOENT')
    expect(fleet.announces(old.narHash)).toBe(false)
  })

  it('of a number of bytes ends with it, and comes to named images when it must', async () => {
    const { images, gc, stateOf } = await hostWith('web', '')
    expect((await gc(1)).collected).toHaveLength(1)
    expect(images.map(stateOf)).toEqual(['verified', undefined])
    expect((await gc(1)).collected).toMatchObject([{ name: 'web' }])
  })

  it('that is dry changes nothing', async () => {
    const { images, gc, stateOf, fleet } = await hostWith('')
    expect((await gc('all', true)).collected).toHaveLength(1)
    expect(images.map(stateOf)).toEqual(['verified'])
    await expect.poll(() => images.map(({ narHash }) => fleet.announces(narHash))).toEqual([true])
  })

  it('leaves what is pinned, also by bytes', async () => {
    const { images: [image], gc, stateOf, context } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    const ref = { kind: 'nar-hash', narHash: image.narHash } as const
    expect(pinImage(context, { ref, pinned: true }).pinnedAt).not.toBeNull()
    expect(await gc('all', true)).toMatchObject({ collected: [], kept: [] })
    expect((await gc(1)).collected).toEqual([])
    pinImage(context, { ref, pinned: false })
    expect((await gc(1)).collected).toHaveLength(1)
    expect(stateOf(image)).toBeUndefined()
  })

  it('leaves what is being served', async () => {
    const { images: [image], gc, context } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    const held = context.uses.hold(image.narHash)
    expect((await gc()).kept).toMatchObject([{ reason: 'it is in use' }])
    held[Symbol.dispose]()
    expect((await gc()).collected).toHaveLength(1)
  })

  it('leaves what is used while it is about to go', async () => {
    const { images: [image], gc, context, stateOf, fleet } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    const withdrawn = gate()
    onWithdraw(context, () => {
      context.uses.touch(image.narHash)
      withdrawn.open()
    })
    expect((await gc()).kept).toMatchObject([{ reason: 'it was used meanwhile' }])
    await withdrawn.opened
    expect(stateOf(image)).toBe('verified')
    expect(context.uses.isLeaving(image.narHash)).toBe(false)
    await expect.poll(() => fleet.announces(image.narHash)).toBe(true)
  })

  it('goes by the last use: an export counts', async () => {
    const { images: [old, young], gc, stateOf, context } = await hostWith('', '') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage, TestImage] }
    await exportImage(context, { ref: { kind: 'nar-hash', narHash: old.narHash }, dest: `${await temporaryDirectory()}/out` })
    await gc(1)
    expect([stateOf(old), stateOf(young)]).toEqual(['verified', undefined])
  })

  it('takes the bytes of rejected images first, and leaves their evidence', async () => {
    const { fleet, context, gc, images, stateOf } = await hostWith('')
    const image = await makeImage(someTree(SIZE, 99))
    await fleet.add('liar', image, { nar: flipped(image.nar, 150_000) })
    await expectFailure(fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } }), 'verification-failed', /Cannot accept/)
    expect((await describeUsage(context, { signal })).images).toContainEqual(expect.objectContaining({ narHash: image.narHash.toSri(), place: 'quarantine', state: 'rejected' }))
    expect((await gc(1)).collected).toMatchObject([{ what: 'rejected' }])
    expect(images.map(stateOf)).toEqual(['verified'])
    expect(stateOf(image)).toBe('rejected')
    expect(context.catalog.journal(image.narHash).at(-1)?.evidence?.peers).toMatchObject([{ outcome: 'lied' }])
    await expect(access(context.content.quarantine(image.narHash))).rejects.toThrow('ENOENT')
  })
})

describe('the copies of the fleet', () => {
  it.each([['before', 0], ['after', 1]] as const)('a holder that comes %s this host', async (where, keeps) => {
    const { fleet, space, gc, images: [image] } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    space.configure({ ...SETTINGS, minCopies: 1 })
    await fleet.add(peerThatComes(where, image.narHash), image)
    const { collected, kept } = await gc()
    expect([collected.length, kept.length]).toEqual([1 - keeps, keeps])
  })

  it('are asked once more after the announcement was withdrawn', async () => {
    const { fleet, space, gc, images: [image], context } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    space.configure({ ...SETTINGS, minCopies: 1 })
    const peer = await fleet.add(peerThatComes('before', image.narHash), image)
    onWithdraw(context, () => { peer.isGone = true })
    expect((await gc()).kept).toMatchObject([{ reason: 'the fleet needs this copy: another one went meanwhile' }])
    await expect.poll(() => fleet.announces(image.narHash)).toBe(true)
  })

  // Two hosts that are about to go must not count on each other.
  it('are told no by every protocol from when this host withdraws its announcement, and yes again when it stays', async () => {
    const { fleet, space, gc, images: [image], context } = await hostWith('') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    space.configure({ ...SETTINGS, minCopies: 1 })
    const peer = await fleet.add(peerThatComes('before', image.narHash), image)
    const parts = { ...context, logger: silentLogger, onDamage: () => undefined }
    const [source, chunks, closures] = [createImageSource(parts), createChunkSource(parts), createClosureSource(parts)]
    const digest = context.catalog.get(image.narHash)?.manifestDigest ?? ''
    const isHere = async (): Promise<boolean[]> => [
      await collect(source.read(image.narHash, 0, 0, { signal })).then(() => true, () => false),
      await source.describe(image.narHash) !== undefined, chunks.hold(image.narHash, digest) !== undefined, closures.narSize(image.narHash) !== undefined,
    ]
    expect(await isHere()).toEqual([true, true, true, true])
    const said: Promise<boolean[]>[] = []
    onWithdraw(context, () => {
      said.push(isHere())
      peer.isGone = true
    })
    expect((await gc()).collected).toEqual([])
    expect(await Promise.all(said)).toEqual([[false, false, false, false]])
    expect(await isHere()).toEqual([true, true, true, true])
  })
})

describe('the quota', () => {
  it('has a fetch collect what it needs, by what its manifest declares', async () => {
    const { fleet, context, space, images, stateOf, quotaWith } = await hostWith('', 'web')
    space.configure({ ...SETTINGS, quotaBytes: await quotaWith(200_000) })
    const image = await makeImage(someTree(SIZE, 99))
    await fleet.add('peer', image)
    expect(await fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } })).toMatchObject({ state: 'verified' })
    expect(images.map(stateOf)).toEqual([undefined, 'verified'])
  })

  it('refuses a fetch that has no room, before a byte is asked for', async () => {
    const { fleet, context, space, images, stateOf, quotaWith } = await hostWith('web')
    for (const { narHash } of images) pinImage(context, { ref: { kind: 'nar-hash', narHash }, pinned: true })
    space.configure({ ...SETTINGS, quotaBytes: await quotaWith(1000) })
    const image = await makeImage(someTree(SIZE, 99))
    const peer = await fleet.add('peer', image)
    await expectFailure(fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } }), 'over-quota', /Cannot take [\d.]+ KiB more: found [\d.]+ KiB too few/)
    expect(peer.asked).toEqual([])
    expect(images.map(stateOf)).toEqual(['verified'])
    expect((await describeUsage(context, { signal })).claimedBytes).toBe(0)
  })

  it('refuses an import that has no room, and leaves nothing of it', async () => {
    const { context, space, quotaWith } = await hostWith()
    space.configure({ ...SETTINGS, quotaBytes: await quotaWith(1000) })
    const image = await makeImage(someTree(SIZE, 99))
    await expectFailure(importImage(context, { path: image.path }), 'over-quota', /Cannot take/)
    expect(await context.content.inQuarantine()).toEqual([])
  })

  it('gives the same room to nobody twice', async () => {
    const { fleet, context, space, quotaWith } = await hostWith()
    const images = [await makeImage(someTree(SIZE, 51)), await makeImage(someTree(SIZE, 53))]
    const { opened, open } = gate()
    for (const [index, image] of images.entries()) await fleet.add(`peer-${index}`, image, { before: () => opened })
    space.configure({ ...SETTINGS, quotaBytes: await quotaWith(ROOM_FOR_ONE) })
    const fetches = Promise.allSettled(images.map(({ narHash }) => fetchImage(context, { ref: { kind: 'nar-hash', narHash } })))
    await expect.poll(async () => (await describeUsage(context, { signal })).claimedBytes).toBeGreaterThan(SIZE)
    open()
    expect((await fetches).map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  })

  it('stops a fetch that it has no room for any more, and keeps what was received', async () => {
    const { fleet, context, space } = await hostWith()
    const image = await makeImage({ kind: 'regular', contents: randomOf(7, 10_000_000), executable: false })
    await fleet.add('peer', image, { before: once(() => { space.configure({ ...SETTINGS, quotaBytes: 1000 }) }) })
    await expectFailure(fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } }), 'over-quota', /Cannot go on receiving/)
    expect(context.catalog.get(image.narHash)).toMatchObject({ state: 'wanted' })
    space.configure(SETTINGS)
    const row = await fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
    expect(row.state).toBe('verified')
    expect(fleet.context.catalog.journal(image.narHash).some(({ reason }) => /(at|from) byte [1-9]/.test(reason))).toBe(true)
  })
})

describe('a disk that is nearly full', () => {
  it('pauses fetches, says so, and lets them go on where they were', async () => {
    const { fleet, context, space } = await hostWith()
    const image = await makeImage({ kind: 'regular', contents: randomOf(7, 20_000_000), executable: false })
    await fleet.add('peer', image, { before: once(() => { space.configure({ ...SETTINGS, minFreeBytes: Number.MAX_SAFE_INTEGER }) }) })
    const phases = new Set<string>()
    const fetch = fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash }, onProgress: ({ phase }) => { phases.add(phase) } })
    await expect.poll(() => space.paused, { timeout: 20_000 }).toMatch(/found [\d.]+ GiB free on the disk, needed 8192\.0 TiB \(space.min_free\)/)
    expect(phases).toContain('paused')
    space.configure(SETTINGS)
    expect(await fetch).toMatchObject({ state: 'verified' })
    expect(space.paused).toBeNull()
  })

  it('does not pause what was given up', async () => {
    const { fleet, context, space } = await hostWith()
    space.configure({ ...SETTINGS, minFreeBytes: Number.MAX_SAFE_INTEGER })
    const image = await makeImage(someTree(SIZE, 7))
    await fleet.add('peer', image)
    const fetch = fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
    fetch.catch(() => undefined)
    await expect.poll(() => space.paused).not.toBeNull()
    await context.jobs.stop()
    await expectFailure(fetch, 'interrupted', /stopping/)
    expect(space.paused).toBeNull()
  })
})

/** Chunks are asked for in any order: the first one that is. */
function once(work: () => void): () => void {
  let isDone = false
  return () => {
    if (!isDone) work()
    isDone = true
  }
}
