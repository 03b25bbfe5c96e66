/** A number of things that may be done at once; who finds none free is told so and does not wait. */
export class Slots {
  #free: number

  constructor(count: number) {
    this.#free = count
  }

  get free(): number {
    return this.#free
  }

  /** Takes a slot, to be given back by calling what is returned; undefined where none is free. */
  take(): (() => void) | undefined {
    if (this.#free === 0) return undefined
    this.#free -= 1
    let held = true
    return () => {
      if (held) this.#free += 1
      held = false
    }
  }
}
