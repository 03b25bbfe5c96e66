/** Lets a bounded number of works run at once; the others wait, first come, first served. */
export class Slots {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Runs `work` when its turn comes; an abort while it waits throws the signal's reason. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#take(signal)
    try {
      return await work()
    } finally {
      this.#give()
    }
  }

  async #take(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    if (this.#free > 0) {
      this.#free--
      return
    }
    const { promise, resolve } = Promise.withResolvers<undefined>()
    const go = (): void => { resolve(undefined) }
    this.#waiting.push(go)
    signal?.addEventListener('abort', go)
    await promise
    signal?.removeEventListener('abort', go)
    if (signal?.aborted !== true) return
    // Still waiting: leave the queue. Else a slot was handed over: hand it on.
    const index = this.#waiting.indexOf(go)
    if (index === -1) this.#give()
    else this.#waiting.splice(index, 1)
    signal.throwIfAborted()
  }

  #give(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free++
    else next()
  }
}
