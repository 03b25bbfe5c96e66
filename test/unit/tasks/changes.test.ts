import { readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { FILE_BUFFER_BYTES } from '../../../src/limits.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { removeImage } from '../../../src/tasks/remove-image.ts'
import { resumeWork } from '../../../src/tasks/resume.ts'
import { verifyImages } from '../../../src/tasks/verify-image.ts'
import { expectFailure, failureOf } from '../../helpers/failure.ts'
import { FakeFleet, flipped, gate, makeImage, PIECE_BYTES, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { closeStore } from '../../helpers/store.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'

const refOf = ({ narHash }: TestImage) => ({ ref: { kind: 'nar-hash' as const, narHash } })

/** A fetch that stands still in the middle, with bytes on disk. */
async function halfFetched(fleet: FakeFleet, image: TestImage, name?: string): Promise<{ fetch: Promise<unknown> }> {
  const reached = gate()
  await fleet.add('giver', image, {
    before: async (offset, signal) => {
      if (offset < image.nar.length - PIECE_BYTES) return
      reached.open()
      await new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(new Error('left')) }) })
    },
  })
  const fetch = fetchImage(fleet.context, { ...refOf(image), ...(name !== undefined && { name }) })
  fetch.catch(() => undefined)
  await reached.opened
  return { fetch }
}

async function expectNothingLeft({ context: { content, catalog } }: FakeFleet): Promise<void> {
  expect(catalog.list()).toEqual([])
  for (const folder of ['quarantine', 'images', 'by-name']) expect(await readdir(join(content.dataDir, folder))).toEqual([])
}

describe('rm', () => {
  it('during a fetch ends it, and leaves nothing', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { fetch } = await halfFetched(fleet, image, 'it')
    expect(await removeImage(fleet.context, refOf(image))).toMatchObject({ name: 'it' })
    await expectFailure(fetch, 'interrupted', /removed on request/)
    await expectNothingLeft(fleet)
    expect(fleet.context.jobs.list()).toEqual([])
  })

  it('of a verified image takes its name, its files and its announcement away', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await importImage(fleet.context, { path: image.path, name: 'it' })
    expect(fleet.announces(image.narHash)).toBe(true)
    await removeImage(fleet.context, { ref: { kind: 'name', name: 'it' } })
    await expectNothingLeft(fleet)
    await vi.waitFor(() => { expect(fleet.announces(image.narHash)).toBe(false) })
    await expectFailure(removeImage(fleet.context, refOf(image)), 'not-found', /no such image/)
  })

  it('of a rejected image leaves nothing', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, 5000) })
    await failureOf(fetchImage(fleet.context, refOf(image)))
    await removeImage(fleet.context, refOf(image))
    await expectNothingLeft(fleet)
  })
})

describe('an import', () => {
  it('of an image that is being fetched ends the fetch, and both get the image', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { fetch } = await halfFetched(fleet, image, 'it')
    expect(await importImage(fleet.context, { path: image.path })).toMatchObject({ state: 'verified', source: 'import', name: 'it' })
    expect(await fetch).toMatchObject({ state: 'verified', source: 'import' })
    expect(await readdir(join(fleet.context.content.dataDir, 'quarantine'))).toEqual([])
  })

  it('replaces a rejected image, and keeps its journal', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('liar', image, { nar: flipped(image.nar, 5000) })
    await failureOf(fetchImage(fleet.context, { ...refOf(image), name: 'it' }))
    expect(await importImage(fleet.context, { path: image.path, name: 'it' })).toMatchObject({ state: 'verified', source: 'import', reason: null })
    expect(fleet.context.catalog.journal(image.narHash).map(({ to }) => to)).toContain('rejected')
  })

  it('of an image that is here already gives it the new name, and leaves the rest', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const first = await importImage(fleet.context, { path: image.path, name: 'one' })
    expect(await importImage(fleet.context, { path: image.path, name: 'two' })).toEqual({ ...first, name: 'two' })
    expect(await readdir(join(fleet.context.content.dataDir, 'by-name'))).toEqual(['two'])
    expect(await readdir(join(fleet.context.content.dataDir, 'quarantine'))).toEqual([])
  })

  it('that is given up leaves nothing', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { content } = fleet.context
    const caller = new AbortController()
    const stage = content.stage.bind(content)
    content.stage = async () => {
      const made = await stage()
      caller.abort(new NarvikError('interrupted', 'the caller went away'))
      return made
    }
    await expectFailure(importImage(fleet.context, { path: image.path, signal: caller.signal }), 'interrupted', /went away/)
    await expectNothingLeft(fleet)
  })

  it.each([['relative', 'invalid-argument'], ['/nowhere/at/all', 'not-found']] as const)('of %s fails with %s', async (path, code) => {
    const fleet = await FakeFleet.start()
    await expectFailure(importImage(fleet.context, { path }), code, /Cannot import/)
    await expectNothingLeft(fleet)
  })
})

describe('a stop', () => {
  it('in the middle of a fetch is followed by the rest of it, from the byte that was reached', async () => {
    const image = await makeImage(someTree(3 * FILE_BUFFER_BYTES))
    const first = await FakeFleet.start()
    const { fetch } = await halfFetched(first, image)
    await vi.waitFor(() => { expect(first.context.jobs.find(image.narHash)?.progress.bytes).toBeGreaterThan(0) }, { timeout: PATIENCE_MS })
    await first.context.jobs.stop()
    await expectFailure(fetch, 'interrupted', /stopping/)
    expect(first.context.catalog.get(image.narHash)?.state).toBe('wanted')
    const { offset } = await first.context.content.readProgress(image.narHash) ?? { offset: 0 }
    expect(offset).toBeGreaterThan(0)
    closeStore(first.context)

    const second = await FakeFleet.start({ dataDir: first.context.content.dataDir })
    const giver = await second.add('giver', image)
    const stop = resumeWork(second.context)
    await vi.waitFor(() => { expect(second.context.catalog.get(image.narHash)?.state).toBe('verified') }, { timeout: PATIENCE_MS })
    stop()
    expect(giver.asked).toEqual([offset])
  })

  it('before anything has arrived is followed by the fetch, once there is a peer', async () => {
    const image = await makeImage(someTree())
    const first = await FakeFleet.start({ settings: { providerWaitMs: 600_000 } })
    const fetch = failureOf(fetchImage(first.context, refOf(image)))
    await vi.waitFor(() => { expect(first.context.catalog.get(image.narHash)?.state).toBe('wanted') })
    await first.context.jobs.stop()
    await fetch
    closeStore(first.context)

    const second = await FakeFleet.start({ dataDir: first.context.content.dataDir })
    const stop = resumeWork(second.context)
    await vi.waitFor(() => { expect(second.context.jobs.list()).toEqual([]) })
    expect(second.context.catalog.get(image.narHash)?.state).toBe('wanted')
    await second.add('giver', image)
    await vi.waitFor(() => { expect(second.context.catalog.get(image.narHash)?.state).toBe('verified') }, { timeout: PATIENCE_MS })
    stop()
  })

  it('between the last byte and the verdict is followed by the verdict', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('giver', image)
    const publish = fleet.context.content.publishAll.bind(fleet.context.content)
    fleet.context.content.publishAll = () => Promise.reject(new NarvikError('disk-full', 'no room'))
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'disk-full', /no room/)
    expect(fleet.context.catalog.get(image.narHash)?.state).toBe('quarantined')
    fleet.context.content.publishAll = publish
    const stop = resumeWork(fleet.context)
    await vi.waitFor(() => { expect(fleet.context.catalog.get(image.narHash)?.state).toBe('verified') }, { timeout: PATIENCE_MS })
    stop()
  })

  it('after the last byte and before the catalog knew needs nobody any more', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const giver = await fleet.add('giver', image)
    const { catalog, content } = fleet.context
    const transition = catalog.transition.bind(catalog)
    catalog.transition = (narHash, event, details) => {
      if (event === 'complete') throw new NarvikError('disk-full', 'no room')
      return transition(narHash, event, details)
    }
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'disk-full', /no room/)
    catalog.transition = transition
    expect(catalog.get(image.narHash)?.state).toBe('wanted')
    expect((await content.readProgress(image.narHash))?.offset).toBe(image.nar.length)
    giver.habit = { answer: 'not-found' }
    expect(await fetchImage(fleet.context, refOf(image))).toMatchObject({ state: 'verified' })
    expect(giver.asked).toEqual([0])
  })

  it.each(['fetch', 'verify'] as const)('or a failure there is made good by the next %s', async verb => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const giver = await fleet.add('giver', image)
    const publish = fleet.context.content.publishAll.bind(fleet.context.content)
    fleet.context.content.publishAll = () => Promise.reject(new NarvikError('disk-full', 'no room'))
    await failureOf(fetchImage(fleet.context, refOf(image)))
    fleet.context.content.publishAll = publish
    await (verb === 'fetch' ? fetchImage(fleet.context, refOf(image)) : verifyImages(fleet.context, refOf(image)))
    expect(fleet.context.catalog.get(image.narHash)?.state).toBe('verified')
    expect(giver.asked).toEqual([0])
  })
})

describe('a caller who asks for an image that is looked for in the background', () => {
  it('gets all of its own time, and so does the next one', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start({ settings: { providerWaitMs: 600_000 } })
    fleet.context.catalog.create({ narHash: image.narHash, source: 'fetch', place: 'content' })
    const stop = resumeWork(fleet.context)
    const fetches = [fetchImage(fleet.context, refOf(image)), fetchImage(fleet.context, refOf(image))]
    await expectFailure(fetchImage(fleet.context, { ...refOf(image), timeoutSeconds: 0.01 }), 'timed-out', /looking for a provider/)
    expect(fleet.context.jobs.find(image.narHash)?.kind).toBe('fetch')
    stop()
    const giver = await fleet.add('giver', image)
    for (const row of await Promise.all(fetches)) expect(row.state).toBe('verified')
    expect(giver.asked).toEqual([0])
  })
})

describe('verify', () => {
  it('of a tree that was changed withdraws it before anybody is answered', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const { content, catalog } = fleet.context
    await importImage(fleet.context, { path: image.path, name: 'it' })
    await rename(join(content.imageTree(image.narHash), 'run'), join(content.imageTree(image.narHash), 'runs')).catch(() => undefined)
    await rm(join(content.imageTree(image.narHash), 'run'), { force: true })
    const [result] = await verifyImages(fleet.context, { ref: 'all' })
    expect(result?.verdict).toMatchObject({ verdict: 'fail', reason: expect.stringMatching(/hashes to .*: run is missing$/) as string })
    expect(catalog.get(image.narHash)).toMatchObject({ state: 'rejected' })
    expect(await readdir(join(content.dataDir, 'images'))).toEqual([])
    expect(await readdir(join(content.dataDir, 'by-name'))).toEqual([])
    await vi.waitFor(() => { expect(fleet.announces(image.narHash)).toBe(false) })
    // It is judged again on request, and stays where it is.
    const [again] = await verifyImages(fleet.context, refOf(image))
    expect(again?.verdict.verdict).toBe('fail')
    expect(catalog.get(image.narHash)?.state).toBe('rejected')
  })

  it('of a tree that is gone rejects the image', async () => {
    const image = await makeImage(someTree(10))
    const fleet = await FakeFleet.start()
    await importImage(fleet.context, { path: image.path })
    await rm(fleet.context.content.imageTree(image.narHash), { recursive: true, force: true })
    const [result] = await verifyImages(fleet.context, refOf(image))
    expect(result?.verdict.stages.map(({ stage, verdict }) => [stage, verdict])).toEqual([['shape', 'fail']])
    expect(fleet.context.catalog.get(image.narHash)?.state).toBe('rejected')
  })

  it('of one that is not here yet is refused', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    fleet.context.catalog.create({ narHash: image.narHash, source: 'fetch', place: 'content' })
    await expectFailure(verifyImages(fleet.context, refOf(image)), 'conflict', /found it wanted, needed the whole of it/)
  })

  it('of all goes on past one that is removed meanwhile', async () => {
    const fleet = await FakeFleet.start()
    const images = [await makeImage(someTree(10, 1)), await makeImage(someTree(10, 2))]
    for (const { path } of images) await importImage(fleet.context, { path })
    const [first, second] = images
    if (first === undefined || second === undefined) throw new Error('no images')
    const held = gate()
    const busy = fleet.context.jobs.run('other', first.narHash, () => held.opened)
    const all = verifyImages(fleet.context, { ref: 'all' })
    await removeImage(fleet.context, refOf(second))
    held.open()
    await busy.result
    expect((await all).map(({ row }) => row.narHash.toSri())).toEqual([first.narHash.toSri()])
  })
})

it('a file beside the tree in the quarantine of a wanted image is not part of it', async () => {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  const { content } = fleet.context
  const giver = await fleet.add('giver', image, { before: offset => { if (offset > 0) throw new Error('broken') } })
  await failureOf(fetchImage(fleet.context, refOf(image)))
  await writeFile(join(content.quarantineTree(image.narHash), 'stranger'), 'x')
  giver.habit = {}
  expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
})
