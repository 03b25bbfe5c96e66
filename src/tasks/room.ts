/** A bounded number of bytes that are held in memory at once; who needs some waits until there are. */
export class Room {
  readonly #size: number
  readonly #waiting: { readonly bytes: number, readonly go: () => void }[] = []
  #free: number

  constructor(size: number) {
    this.#size = size
    this.#free = size
  }

  /** Takes room; answers with how to give it back. Who needs more than there ever is takes all of it. */
  async take(bytes: number): Promise<() => void> {
    const taken = Math.min(bytes, this.#size)
    if (this.#waiting.length > 0 || taken > this.#free) await new Promise<void>(go => { this.#waiting.push({ bytes: taken, go }) })
    else this.#free -= taken
    return () => { this.#give(taken) }
  }

  #give(bytes: number): void {
    this.#free += bytes
    for (let next = this.#waiting[0]; next !== undefined && next.bytes <= this.#free; next = this.#waiting[0]) {
      this.#waiting.shift()
      this.#free -= next.bytes
      next.go()
    }
  }
}
