/** One who is served in turns. */
export interface Taker {
  /** It is its turn now, after it had to wait. */
  readonly onTurn: () => void
}

export interface TurnsInit {
  /** Takers that are served at once. */
  readonly places: number
  /** Bytes after which a taker makes room, where others wait. */
  readonly quantumBytes: number
  /** Milliseconds for a taker to use a turn that it had to wait for. */
  readonly claimMs: number
}

interface Place {
  bytes: number
  /** Until when it must be used; undefined once it was. */
  claimBy: number | undefined
  /** Whether there was nothing to be sent when it was looked at last. */
  rests: boolean
}

/**
 * Shares a host's sending among its takers: a bounded number of them at once, the others in a line. Whoever has had its
 * share, or has nothing to be sent, makes room for the first in the line, so that in the long run all get the same.
 */
export class Turns {
  readonly #init: TurnsInit
  readonly #places = new Map<Taker, Place>()
  readonly #line = new Set<Taker>()

  constructor(init: TurnsInit) {
    this.#init = init
  }

  /** Whether somebody waits. */
  get isAwaited(): boolean {
    return this.#line.size > 0
  }

  /** Whether the taker is served now; if not, it is told when it is its turn. */
  take(taker: Taker): boolean {
    const place = this.#places.get(taker)
    if (place !== undefined) {
      place.claimBy = undefined
      place.rests = false
      return true
    }
    if (this.#line.size === 0 && this.#hasRoom()) {
      this.#places.set(taker, { bytes: 0, claimBy: undefined, rests: false })
      return true
    }
    this.#line.add(taker)
    return false
  }

  /** Counts what was sent; answers whether the taker has had its share and lost its place to another one. */
  sent(taker: Taker, bytes: number, now: number): boolean {
    const place = this.#places.get(taker)
    if (place === undefined) return true
    place.bytes += bytes
    if (place.bytes < this.#init.quantumBytes || this.#line.size === 0) return false
    this.#line.add(taker)
    this.#free(taker, now)
    return true
  }

  /** The taker has nothing to be sent. */
  rests(taker: Taker, now: number): void {
    const place = this.#places.get(taker)
    if (place === undefined || place.claimBy !== undefined) return
    place.rests = true
    if (this.#line.size > 0) this.#free(taker, now)
  }

  /** The taker is gone. */
  leave(taker: Taker, now: number): void {
    this.#line.delete(taker)
    this.#free(taker, now)
  }

  /** Takes turns back that nobody uses; to be called from time to time. */
  expire(now: number): void {
    for (const [taker, { claimBy }] of this.#places) if (claimBy !== undefined && claimBy <= now && this.#line.size > 0) this.#free(taker, now)
  }

  /** Whether there is a place, or one of a taker that rests. */
  #hasRoom(): boolean {
    if (this.#places.size < this.#init.places) return true
    for (const [taker, { rests }] of this.#places) if (rests) return this.#places.delete(taker)
    return false
  }

  #free(taker: Taker, now: number): void {
    if (!this.#places.delete(taker)) return
    const [next] = this.#line
    if (next === undefined) return
    this.#line.delete(next)
    this.#places.set(next, { bytes: 0, claimBy: now + this.#init.claimMs, rests: false })
    next.onTurn()
  }
}
