import { execFileSync } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { reconcile } from '../../src/store/reconcile.ts'
import { watchSteps } from '../helpers/file-system.ts'
import { someHash } from '../helpers/images.ts'
import { expectInvariants } from '../helpers/invariants.ts'
import { liveWith } from '../helpers/life.ts'
import { closeStore, openStore } from '../helpers/store.ts'
import type { Store } from '../helpers/store.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'
import { makeTree } from '../helpers/tree.ts'

/** Turns in which an image that is fetched, and one that is imported, pass through every state. */
const TURNS = 10
const IMAGES = [0, 1]

/** An image that is nowhere but on disk, as after the loss of a catalog. */
const LOST = 30

/** What a kill at some moment leaves on disk, and which images had been told to be verified by then. */
interface Crash {
  readonly dataDir: string
  readonly at: string
  readonly verified: readonly number[]
}

describe('a process that ends at any step', () => {
  test('leaves what start-up settles, and so does a start-up that ends at any step', async () => {
    const crashes = await crashesOf(await openStore(), async store => {
      for (let turn = 0; turn < TURNS; turn++) {
        for (const image of IMAGES) await liveWith(image, store, store.say)
      }
    })
    expect(crashes.length).toBeGreaterThan(50)
    for (const crash of crashes) await expectSettled(crash)
  })

  test('while it settles what an earlier one left does no harm either', async () => {
    const crashes = await crashesOf(await openStore(), store => messUp(store))
    const last = crashes.at(-1)
    if (last === undefined) throw new Error('nothing happened')
    const again = await crashesOf(await openStore(last.dataDir), async ({ catalog, content }) => {
      await reconcile(catalog, content, { logger: silentLogger })
    })
    expect(again.length).toBeGreaterThan(10)
    for (const crash of again) {
      await expectSettled(crash, ({ catalog }) => { expect(catalog.get(someHash(LOST))?.state).toBe('quarantined') })
    }
  })
})

describe('a step that fails', () => {
  test('leaves no tree in sight that the catalog does not call verified, without a restart', async () => {
    for (let failing = 0; ; failing++) {
      const store = await openStore()
      const failed = await failAt(failing, () => publishOne(store))
      if (!failed) {
        expect(failing).toBeGreaterThan(5)
        break
      }
      const published = await readdir(join(store.dataDir, 'images'))
      for (const name of published) expect(store.catalog.get(NarHash.parse(name))?.state, `after step ${failing}`).toBe('verified')
      // Trying again gets there.
      await publishOne(store)
      closeStore(store)
    }
  })
})

/** Does the work, and copies the data directory ahead of each of its steps, as a kill at that moment would leave it. */
async function crashesOf(store: Store, work: (store: Store & { say: (word: string, image: number) => void }) => Promise<void>): Promise<Crash[]> {
  const copies = await temporaryDirectory()
  const crashes: Crash[] = []
  const verified = new Set<number>()
  const say = (word: string, image: number): void => {
    if (word === 'verified') verified.add(image)
    if (word === 'withdrawing' || word === 'removing') verified.delete(image)
  }
  let last = ''
  const copy = (at: string): void => {
    // A sync changes nothing that a kill could leave otherwise.
    const state = fingerprint(store.dataDir)
    if (state === last) return
    last = state
    const dataDir = join(copies, String(crashes.length))
    execFileSync('cp', ['-a', store.dataDir, dataDir])
    crashes.push({ dataDir, at, verified: [...verified] })
  }
  await watchSteps(({ call, path }) => { copy(`${call} ${path}`) }, () => work({ ...store, say }))
  copy('the end')
  closeStore(store)
  return crashes
}

/** Tells apart what is on disk at two moments: names, modes, sizes and times of all there is. */
function fingerprint(directory: string): string {
  return execFileSync('find', [directory, '-printf', '%P %m %s %T@ %l\n'], { encoding: 'utf8' })
}

async function expectSettled({ dataDir, at, verified }: Crash, check: (store: Store) => void = () => undefined): Promise<void> {
  const store = await openStore(dataDir)
  try {
    await reconcile(store.catalog, store.content, { logger: silentLogger })
    await expectInvariants(store)
    for (const image of verified) expect(store.catalog.get(someHash(image))?.state, `image ${image}`).toBe('verified')
    check(store)
    const { foreign, ...second } = await reconcile(store.catalog, store.content, { logger: silentLogger })
    expect([foreign, Object.values(second).flat()], 'nothing is left to do').toEqual([[], []])
  } catch (error) {
    throw new Error(`after a kill ahead of: ${at}`, { cause: error })
  } finally {
    closeStore(store)
  }
}

/** One image in each sort of disorder that start-up puts right. */
async function messUp(store: Store): Promise<void> {
  const { catalog, content } = store
  const turns: [image: number, turns: number][] = [[10, 3], [12, 3], [14, 2], [16, 3], [11, 2], [18, 2]]
  for (const [image, count] of turns) {
    for (let turn = 0; turn < count; turn++) await liveWith(image, store, () => undefined)
  }
  await content.withdraw(someHash(10))
  catalog.transition(someHash(12), 'damage', { reason: 'test' })
  await content.publish(someHash(14))
  await content.discard(someHash(16))
  catalog.remove(someHash(11), 'test')
  await liveWith(20, store, () => undefined)
  catalog.transition(someHash(20), 'start', { reason: 'test' })
  await content.begin(someHash(20))
  await content.stage()
  await makeTree(content.imageTree(someHash(LOST)), someHash(LOST))
  await content.link('stray', content.imageTree(someHash(18)))
}

/** Takes one image from nothing to verified, from wherever it is. */
async function publishOne(store: Store): Promise<void> {
  while (store.catalog.get(someHash(0))?.state !== 'verified') {
    if (store.catalog.get(someHash(0))?.state === 'receiving') store.catalog.transition(someHash(0), 'interrupt', { reason: 'test' })
    await liveWith(0, store, () => undefined)
  }
}

/** Does the work with one of its steps failing, and says whether it came to that step. */
async function failAt(failing: number, work: () => Promise<void>): Promise<boolean> {
  let step = 0
  let failed = false
  const before = (): void => {
    if (step++ !== failing) return
    failed = true
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  }
  await watchSteps(before, work).catch((error: unknown) => {
    if (!failed) throw error
  })
  return failed
}
