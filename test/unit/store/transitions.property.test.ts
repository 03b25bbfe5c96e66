import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import { EVENTS, TRANSITIONS } from '../../../src/image/states.ts'
import type { ImageState } from '../../../src/image/states.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import type { JournalEvent } from '../../../src/store/image-row.ts'
import { someHash, someMetadata } from '../../helpers/images.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

interface Step {
  readonly image: number
  readonly event: JournalEvent | 'reopen'
  /** Takes, in place of `event`, one that the table allows: drawn evenly, events seldom lead as far as `verified`. */
  readonly legal: number | null
}

const ALL = [...EVENTS, 'create', 'remove'] as const

const step: fc.Arbitrary<Step> = fc.record({
  image: fc.nat({ max: 1 }),
  event: fc.constantFrom(...ALL, 'reopen' as const),
  legal: fc.option(fc.nat({ max: 100 }), { freq: 3 }),
})

/** The catalog as the table of transitions has it: a state for each image, and the events that led there. */
class Model {
  readonly #states = new Map<number, ImageState>()
  readonly #journals = new Map<number, JournalEvent[]>()

  state(image: number): ImageState | undefined {
    return this.#states.get(image)
  }

  journal(image: number): readonly JournalEvent[] {
    return this.#journals.get(image) ?? []
  }

  /** The events that may happen next. */
  legal(image: number): JournalEvent[] {
    return ALL.filter(event => this.#next(this.state(image), event) !== 'impossible')
  }

  /** Whether the event may happen; if so, it has. */
  take(image: number, event: JournalEvent): boolean {
    const state = this.#states.get(image)
    const next = this.#next(state, event)
    if (next === 'impossible') return false
    if (next === undefined) this.#states.delete(image)
    else this.#states.set(image, next)
    this.#journals.set(image, [...this.journal(image), event])
    return true
  }

  #next(state: ImageState | undefined, event: JournalEvent): ImageState | undefined | 'impossible' {
    if (event === 'create') return state === undefined ? 'wanted' : 'impossible'
    if (state === undefined) return 'impossible'
    return event === 'remove' ? undefined : TRANSITIONS[state][event] ?? 'impossible'
  }
}

test('any sequence of events leads the catalog where the table of transitions leads', async () => {
  const directory = await temporaryDirectory()
  let run = 0
  const reached = new Set<ImageState>()
  fc.assert(fc.property(fc.array(step, { minLength: 20, maxLength: 60 }), steps => {
    run += 1
    const file = join(directory, `${run}.db`)
    const model = new Model()
    let catalog = Catalog.open(file)
    try {
      for (const { image, event: drawn, legal } of steps) {
        const choice = model.legal(image)
        const event = legal === null ? drawn : choice[legal % choice.length] ?? drawn
        if (event === 'reopen') {
          catalog.close()
          catalog = Catalog.open(file)
        } else {
          expect(apply(catalog, image, event), `${event} of image ${image}`).toBe(model.take(image, event))
        }
        const state = model.state(image)
        if (state !== undefined) reached.add(state)
        agree(catalog, model)
      }
    } finally {
      catalog.close()
    }
  }), { numRuns: process.env['SLOW'] === '1' ? 500 : 40 })
  expect(reached.size).toBe(5)
})

/** Whether the catalog took the event. */
function apply(catalog: Catalog, image: number, event: JournalEvent): boolean {
  const narHash = someHash(image)
  try {
    if (event === 'create') {
      catalog.create({ narHash, source: 'fetch', place: 'content' })
      catalog.describe(narHash, someMetadata(narHash), null)
    } else if (event === 'remove') {
      catalog.remove(narHash, 'test')
    } else {
      catalog.transition(narHash, event, { reason: event })
    }
    return true
  } catch (error) {
    if (isNarvikError(error, 'conflict', 'not-found')) return false
    throw error
  }
}

function agree(catalog: Catalog, model: Model): void {
  for (const image of [0, 1]) {
    const row = catalog.get(someHash(image))
    expect(row?.state).toBe(model.state(image))
    if (row !== undefined) expect(row.verifiedAt !== null).toBe(row.state === 'verified')
    const journal = catalog.journal(someHash(image))
    expect(journal.map(entry => entry.event)).toEqual(model.journal(image))
    for (const [index, entry] of journal.entries()) expect(entry.from).toBe(journal[index - 1]?.to ?? null)
  }
}
