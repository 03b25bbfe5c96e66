import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Catalog } from '../../../src/store/catalog.ts'
import { Content } from '../../../src/store/content.ts'
import { ModelHost, type Chance } from '../../helpers/model-host.ts'

/** `MODEL_SEQUENCES` and `MODEL_SEED` ask for more, and for those of a failure again. */
const SEQUENCES = Number(process.env['MODEL_SEQUENCES'] ?? 100_000)
const FIRST_SEED = Number(process.env['MODEL_SEED'] ?? 1)
/** Sequences that follow each other on one host; each batch has its own seed. */
const BATCH = 200
const IMAGES = 4
/** At most, to each half of the images. */
const HAPPENINGS = 2

const disk = await vi.hoisted(async () => new (await import('../../helpers/memory-disk.ts')).MemoryDisk())
vi.mock('node:fs/promises', async original => ({ ...await original(), ...disk.calls }))
vi.mock('../../../src/nar/remove.ts', () => ({ removeTree: (path: string) => disk.remove(path) }))

test(`in ${SEQUENCES} sequences of events, each ended by a kill, nothing unproven is ever shown or served`, { timeout: 1_200_000 }, async () => {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'narvik-model-'))
  onTestFinished(() => { rmSync(directory, { recursive: true, force: true }) })
  mkdirSync(join(directory, 'data'))
  const content = await Content.open(join(directory, 'data'))
  onTestFinished(() => { content.close() })
  const seen = new Map<string, number>()
  for (let batch = 0; batch * BATCH < SEQUENCES; batch++) {
    for (const [state, count] of await runBatch({ directory, content, seed: FIRST_SEED + batch })) seen.set(state, (seen.get(state) ?? 0) + count)
  }
  // The walk is worth something where it comes to every state often.
  for (const state of ['absent', 'wanted', 'receiving', 'quarantined', 'verified', 'rejected']) expect(seen.get(state) ?? 0, state).toBeGreaterThan(SEQUENCES / 250)
})

async function runBatch({ directory, content, seed }: { directory: string, content: Content, seed: number }): Promise<ReadonlyMap<string, number>> {
  const chance = chanceOf(seed)
  disk.clear()
  disk.onStep = () => undefined
  for (const name of ['quarantine', 'images', 'by-name', 'gcroots']) await disk.calls.mkdir(join(content.dataDir, name), { recursive: true })
  let file = join(directory, 'catalog-0.db')
  let catalog = Catalog.open(file)
  const host = new ModelHost({ disk, content, catalog, images: IMAGES, chance })
  try {
    for (let sequence = 0; sequence < BATCH; sequence++) {
      try {
        await host.live(HAPPENINGS)
      } catch (error) {
        throw new Error(`sequence ${sequence} of MODEL_SEED=${seed} (MODEL_SEQUENCES=${BATCH}):\n${host.trail.join('\n')}`, { cause: error })
      }
      // What a kill leaves of the catalog itself, with its log as it is: now and then it is opened by another process.
      if (sequence % 50 !== 49) continue
      host.expectJournals()
      const next = join(directory, `catalog-${sequence + 1}.db`)
      for (const suffix of ['', '-wal']) copyFileSync(`${file}${suffix}`, `${next}${suffix}`)
      catalog.close()
      rmSync(file)
      file = next
      catalog = Catalog.open(file)
      host.reopen(catalog)
    }
    return host.seen
  } finally {
    catalog.close()
    rmSync(file)
  }
}

/** Mulberry32: the same numbers for the same seed. */
function chanceOf(seed: number): Chance {
  let state = seed >>> 0
  return below => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}
