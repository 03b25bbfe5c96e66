/** A number of things that may be done at once; who finds none free is told so and does not wait. */
export class Slots {
  #taken = 0
  /** As many as there are; fewer take none away that is held. */
  count: number

  constructor(count: number) {
    this.count = count
  }

  get free(): number {
    return Math.max(0, this.count - this.#taken)
  }

  /** Takes a slot, to be given back by calling what is returned; undefined where none is free. */
  take(): (() => void) | undefined {
    if (this.#taken >= this.count) return undefined
    this.#taken += 1
    let held = true
    return () => {
      if (held) this.#taken -= 1
      held = false
    }
  }
}
