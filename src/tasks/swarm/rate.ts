/** Milliseconds over which a speed is averaged: what was seen longer ago counts less and less. */
const MEMORY_MS = 3000

/** The speed at which something comes while it is waited for. */
export class Rate {
  #bytes = 0
  #milliseconds = 0
  #since: number | undefined

  /** Bytes per second; undefined while nothing was seen. */
  get bytesPerSecond(): number | undefined {
    return this.#milliseconds > 0 ? this.#bytes * 1000 / this.#milliseconds : undefined
  }

  /** Waiting begins; nothing happens where it has begun before. */
  start(now: number): void {
    this.#since ??= now
  }

  /** Nothing is waited for any more. */
  stop(): void {
    this.#since = undefined
  }

  /** Bytes came, of those that are waited for. */
  add(bytes: number, now: number): void {
    const elapsed = Math.max(now - (this.#since ?? now), 0.01)
    const kept = Math.exp(-elapsed / MEMORY_MS)
    this.#bytes = this.#bytes * kept + bytes
    this.#milliseconds = this.#milliseconds * kept + elapsed
    this.#since = now
  }
}
