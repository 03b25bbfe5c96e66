import type { World } from './world.ts'

/** As src/tasks/providers.ts has them. */
const LOOK_UP_INTERVAL_MS = { first: 500, last: 8000, served: 30_000 }

interface Question {
  readonly except?: (peerId: string) => boolean
  readonly isServed?: () => boolean
}

/** The providers that one host knows, one at a time; looks for more as `Providers` of src/tasks does, in virtual time. */
export class Providers {
  readonly #world: World
  readonly #isWelcome: (peerId: string) => boolean
  readonly #isOver: () => boolean
  readonly #known = new Set<string>()
  readonly #tried = new Set<string>()
  #lookedUpAt = -Infinity

  constructor(world: World, { isWelcome, isOver }: { isWelcome: (peerId: string) => boolean, isOver: () => boolean }) {
    this.#world = world
    this.#isWelcome = isWelcome
    this.#isOver = isOver
  }

  /** Calls `then` with the next one to try, when there is one. */
  next(question: Question, then: (peerId: string) => void, pause = LOOK_UP_INTERVAL_MS.first): void {
    const { agenda, nature, directory } = this.#world
    if (this.#isOver()) return
    if (this.#give(question, then)) return
    if (question.isServed?.() === true && agenda.now - this.#lookedUpAt < LOOK_UP_INTERVAL_MS.served) {
      this.#rest(question, then, pause)
      return
    }
    this.#lookedUpAt = agenda.now
    agenda.after(nature.lookUpMs, () => {
      for (const peerId of directory.find()) this.#known.add(peerId)
      if (!this.#isOver() && !this.#give(question, then)) this.#rest(question, then, pause)
    })
  }

  /** Every provider may be tried again. */
  startOver(): void {
    this.#tried.clear()
  }

  #give({ except }: Question, then: (peerId: string) => void): boolean {
    for (const peerId of this.#known) {
      if (this.#tried.has(peerId) || except?.(peerId) === true || !this.#isWelcome(peerId)) continue
      this.#tried.add(peerId)
      then(peerId)
      return true
    }
    return false
  }

  #rest(question: Question, then: (peerId: string) => void, pause: number): void {
    this.#tried.clear()
    const next = question.isServed?.() === true ? LOOK_UP_INTERVAL_MS.first : Math.min(2 * pause, LOOK_UP_INTERVAL_MS.last)
    this.#world.agenda.after(pause, () => { this.next(question, then, next) })
  }
}
