import type { NarHash } from '../image/nar-hash.ts'

export interface Waiting {
  readonly narHash: NarHash
  /** Higher ones go first; 0 where nobody said otherwise. */
  readonly priority: number
  readonly since: Date
}

interface Place extends Waiting {
  priority: number
  readonly enter: () => void
}

/**
 * The line of images that are to be received: a bounded number at once, so that each is soon whole instead of all being slow. By
 * priority, and in the order in which they came where that is the same. An image takes its place when it has a provider, so that those that
 * nobody has hold up nobody.
 */
export class FetchQueue {
  readonly #line: Place[] = []
  #atOnce: number
  #inside = 0

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  /** Another number of images at once; what is being received goes on. */
  configure(atOnce: number): void {
    this.#atOnce = atOnce
    this.#admit()
  }

  /** Resolves when it is the image's turn; it makes room for the next one when it is disposed of. Rejects with the signal's reason. */
  async enter(narHash: NarHash, { priority, signal, onWait }: { readonly priority: number, readonly signal: AbortSignal, readonly onWait: () => void }): Promise<Disposable> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<undefined>()
    const place: Place = { narHash, priority, since: new Date(), enter: () => { resolve(undefined) } }
    const onAbort = (): void => {
      const at = this.#line.indexOf(place)
      // Whoever was let in already has its turn, and finds out by what it does next.
      if (at < 0) return
      this.#line.splice(at, 1)
      reject(signal.reason as Error)
    }
    this.#insert(place)
    this.#admit()
    if (this.#line.includes(place)) onWait()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
    return this.#turn()
  }

  /** Those that wait, the next one first. */
  list(): readonly Waiting[] {
    return this.#line
  }

  /** Gives an image that waits another priority; behind those that have the same. Says whether it waits. */
  setPriority(narHash: NarHash, priority: number): boolean {
    const place = this.#take(narHash)
    if (place === undefined) return false
    place.priority = priority
    this.#insert(place)
    return true
  }

  /**
   * Puts an image that waits at a position, 1 being the next; it gets the priority of those that are there, so that the line stays in order.
   * Answers with that, or undefined where it does not wait.
   */
  move(narHash: NarHash, position: number): number | undefined {
    const place = this.#take(narHash)
    if (place === undefined) return undefined
    const at = Math.min(Math.max(position, 1), this.#line.length + 1) - 1
    place.priority = (this.#line[at] ?? this.#line.at(-1) ?? place).priority
    this.#line.splice(at, 0, place)
    return place.priority
  }

  #take(narHash: NarHash): Place | undefined {
    const at = this.#line.findIndex(place => place.narHash.equals(narHash))
    return at < 0 ? undefined : this.#line.splice(at, 1)[0]
  }

  #insert(place: Place): void {
    const at = this.#line.findIndex(other => other.priority < place.priority)
    this.#line.splice(at < 0 ? this.#line.length : at, 0, place)
  }

  #admit(): void {
    while (this.#inside < this.#atOnce) {
      const next = this.#line.shift()
      if (next === undefined) return
      this.#inside += 1
      next.enter()
    }
  }

  #turn(): Disposable {
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (held) this.#inside -= 1
        held = false
        this.#admit()
      },
    }
  }
}
