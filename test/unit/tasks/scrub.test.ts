import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { pinImage } from '../../../src/tasks/pin-image.ts'
import { byUrgency, Scrubber } from '../../../src/tasks/scrub.ts'
import { verifyImages } from '../../../src/tasks/verify-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const FAST = 1024 ** 4
const DAY = 24 * 3600 * 1000

/** A host with images, at a time when all of them are due. */
async function hostWith(...names: (string | undefined)[]) {
  const fleet = await FakeFleet.start()
  const { context } = fleet
  const images: TestImage[] = []
  for (const [index, name] of names.entries()) {
    const image = await makeImage(someTree(50_000, 3 + 2 * index))
    images.push(image)
    await importImage(context, { path: image.path, ...(name === undefined ? {} : { name }) })
  }
  const clock = { now: Date.now() + 2 * DAY }
  const scrubber = new Scrubber(context, { bytesPerSecond: FAST, intervalMs: DAY }, { now: () => clock.now })
  const rowOf = ({ narHash }: TestImage) => context.catalog.get(narHash)
  return { fleet, context, images, clock, scrubber, rowOf }
}

/** Changes a byte of a published tree, as a bad disk does. */
async function damage({ content }: FakeFleet['context'], { narHash }: TestImage): Promise<void> {
  const file = join(content.imageTree(narHash), 'run')
  await chmod(file, 0o644)
  await writeFile(file, '#!/bin/sx\n')
  await chmod(file, 0o555)
}

/** Notes every job from now on, as `kind hash`. */
function jobsOf({ jobs }: FakeFleet['context']): string[] {
  const started: string[] = []
  const run = jobs.run.bind(jobs)
  jobs.run = (kind, narHash, work) => {
    started.push(`${kind} ${narHash.toSri()}`)
    return run(kind, narHash, work)
  }
  return started
}

describe('the scrub', () => {
  it('proves what is due, pinned images first and then named ones, and puts down when', async () => {
    const { context, images, scrubber, rowOf } = await hostWith(undefined, 'web', undefined)
    const [plain, named, pinned] = images as [TestImage, TestImage, TestImage]
    pinImage(context, { ref: { kind: 'nar-hash', narHash: pinned.narHash }, pinned: true })
    expect(context.catalog.list().sort(byUrgency).map(({ narHash }) => narHash.toSri())).toEqual([pinned, named, plain].map(({ narHash }) => narHash.toSri()))
    const order = jobsOf(context)
    const before = images.map(image => rowOf(image)?.provenAt?.getTime() ?? 0)
    await scrubber.look()
    expect(order).toEqual([pinned, named, plain].map(({ narHash }) => `scrub ${narHash.toSri()}`))
    for (const [index, image] of images.entries()) expect(rowOf(image)?.provenAt?.getTime()).toBeGreaterThanOrEqual(before[index] ?? 0)
  })

  it('among those of one kind takes what was proven longest ago first, and what never was before it', async () => {
    const { context } = await hostWith(undefined, undefined, undefined, undefined)
    const provenAt = [3, 1, null, 2].map(at => at === null ? null : new Date(at))
    const rows = context.catalog.list().map((row, index) => ({ ...row, provenAt: provenAt[index] ?? null }))
    expect(rows.toSorted(byUrgency).map(row => row.provenAt?.getTime() ?? null)).toEqual([null, 1, 2, 3])
  })

  it('reads no faster than its rate', async () => {
    const { context, images: [slow, fast], scrubber } = await hostWith('web', undefined) as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage, TestImage] }
    // A quarter of an hour for the one with a name, which comes first.
    scrubber.configure({ bytesPerSecond: 50, intervalMs: DAY })
    const looking = scrubber.look()
    await expect.poll(() => context.jobs.find(slow.narHash)?.kind).toBe('scrub')
    for (let round = 0; round < 20; round++) await verifyImages(context, { ref: { kind: 'nar-hash', narHash: fast.narHash } })
    expect(scrubber.describe().underWay).toBe(slow.narHash.toSri())
    await context.jobs.stop()
    await looking
  })

  it('says when it has proven something last, when it will next, and what it found', async () => {
    const { context, images: [image], clock, scrubber, rowOf } = await hostWith('web') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    const due = new Date(clock.now).toISOString()
    expect(scrubber.describe()).toEqual({ lastAt: null, nextAt: due, underWay: null, damaged: 0 })
    await scrubber.look()
    // Left alone until a day after the look, by its clock.
    expect(scrubber.describe()).toEqual({ lastAt: rowOf(image)?.provenAt?.toISOString(), nextAt: new Date(clock.now + DAY).toISOString(), underWay: null, damaged: 0 })
    scrubber.configure({ bytesPerSecond: 0, intervalMs: DAY })
    expect(scrubber.describe().nextAt).toBeNull()
    scrubber.configure({ bytesPerSecond: FAST, intervalMs: DAY })
    clock.now += 2 * DAY
    await damage(context, image)
    await scrubber.look()
    expect(scrubber.describe()).toMatchObject({ nextAt: null, damaged: 1 })
  })

  it('leaves alone what was proven not long ago, and everything where it is turned off', async () => {
    const { context, clock, scrubber } = await hostWith('web')
    const started = jobsOf(context)
    clock.now -= 2 * DAY
    await scrubber.look()
    clock.now += 2 * DAY
    scrubber.configure({ bytesPerSecond: 0, intervalMs: DAY })
    await scrubber.look()
    expect(started).toEqual([])
  })

  it('withdraws what is damaged and repairs it from peers; its name and pin stay', async () => {
    const { fleet, context, images: [image], scrubber, rowOf } = await hostWith('web') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    pinImage(context, { ref: { kind: 'name', name: 'web' }, pinned: true })
    await damage(context, image)
    await fleet.add('peer', image)
    await scrubber.look()
    await expect.poll(() => rowOf(image), { timeout: 20_000 }).toMatchObject({ state: 'verified', source: 'fetch', name: 'web', pinnedAt: expect.any(Date) as Date })
    const events = context.catalog.journal(image.narHash).map(({ event }) => event)
    expect(events.slice(events.indexOf('damage'))).toEqual(['damage', 'fail', 'retry', 'start', 'complete', 'pass'])
    expect((await hashTree(context.content.imageTree(image.narHash))).narHash.equals(image.narHash)).toBe(true)
  })

  it('leaves what nobody else has rejected, with the evidence', async () => {
    const { fleet, context, images: [image], scrubber, rowOf } = await hostWith('web') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    await damage(context, image)
    await scrubber.look()
    expect(rowOf(image)).toMatchObject({ state: 'rejected', reason: expect.stringMatching(/hashes to/) as string })
    expect(fleet.announces(image.narHash)).toBe(false)
    expect(context.catalog.journal(image.narHash).at(-1)?.evidence?.verdict?.verdict).toBe('fail')
  })

  it('does not believe that an image was proven in a time to come', async () => {
    const { images: [image], scrubber, clock, rowOf } = await hostWith('web') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    const before = rowOf(image)?.provenAt?.getTime() ?? 0
    clock.now = before - 10 * DAY
    await scrubber.look()
    expect(rowOf(image)?.provenAt?.getTime()).toBeGreaterThan(before)
  })

  it('gives way to anything else that is to be done with the image', async () => {
    const { context, images: [image], scrubber, clock } = await hostWith('web') as never as Awaited<ReturnType<typeof hostWith>> & { images: [TestImage] }
    scrubber.configure({ bytesPerSecond: 100, intervalMs: DAY })
    const looking = scrubber.look()
    await expect.poll(() => context.jobs.find(image.narHash)?.kind).toBe('scrub')
    expect(await verifyImages(context, { ref: { kind: 'name', name: 'web' } })).toMatchObject([{ verdict: { verdict: 'pass' } }])
    await looking
    // It is left alone for a while, and then tried again.
    scrubber.configure({ bytesPerSecond: FAST, intervalMs: DAY })
    clock.now += DAY
    await scrubber.look()
  })
})

describe('reading slowly', () => {
  it('takes the time that its rate says, and ends at once when it is given up', async () => {
    const { path, narHash, nar } = await makeImage(someTree(400_000))
    const started = performance.now()
    expect((await hashTree(path, { bytesPerSecond: nar.length * 2 })).narHash.equals(narHash)).toBe(true)
    expect(performance.now() - started).toBeGreaterThan(300)
    const given = new AbortController()
    const reading = hashTree(await temporaryDirectory().then(() => path), { bytesPerSecond: 10, signal: given.signal })
    given.abort(new NarvikError('interrupted', 'Cannot go on: so'))
    await expectFailure(reading, 'interrupted', /so/)
  })
})
