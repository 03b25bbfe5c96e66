/** What is to happen, in steps of virtual time; of one step in the order in which it was put down. */
export class Agenda {
  readonly stepMs: number
  readonly #steps = new Map<number, (() => void)[]>()
  #step = 0
  /** The first step that is not over. */
  #open = 0

  constructor(stepMs: number) {
    this.stepMs = stepMs
  }

  /** Milliseconds since the run began. */
  get now(): number {
    return this.#step * this.stepMs
  }

  /** Has `run` called at the step next to `at`; never in one that is over. */
  at(at: number, run: () => void): void {
    const step = Math.max(this.#open, Math.round(at / this.stepMs))
    const entries = this.#steps.get(step)
    if (entries === undefined) this.#steps.set(step, [run])
    else entries.push(run)
  }

  after(milliseconds: number, run: () => void): void {
    this.at(this.now + milliseconds, run)
  }

  /** Goes on to the next step and does what was put down for it, and what that puts down for the same one. */
  advance(): void {
    this.#step = this.#open
    // It grows while it is read.
    for (const run of this.#steps.get(this.#step) ?? []) run()
    this.#steps.delete(this.#step)
    this.#open += 1
  }
}
