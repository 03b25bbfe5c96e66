import { BAN_MEMORY_MS, CLOCK_SKEW_MS, MAX_BAN_MS } from '../limits.ts'

/** Why, how often and for how long a peer is kept away. Times are milliseconds since 1970. */
export interface Ban {
  readonly peerId: string
  readonly reason: string
  readonly since: number
  readonly until: number
  /** Bans of the peer that this host remembers, this one included. */
  readonly times: number
}

/** Where bans outlive a restart. */
export interface BanStore {
  list(): readonly Ban[]
  put(ban: Ban): void
  remove(peerId: string): void
}

/**
 * The peers that this host wants nothing of, each for a time. Each further ban takes twice as long as the one before; what is long past is
 * forgotten.
 */
export class Bans {
  readonly #now: () => number
  readonly #store: BanStore | undefined
  readonly #bans = new Map<string, Ban>()

  constructor({ store, now = Date.now }: { store?: BanStore | undefined, now?: (() => number) | undefined } = {}) {
    this.#now = now
    this.#store = store
    for (const ban of store?.list() ?? []) this.#bans.set(ban.peerId, ban)
    this.#forgetOld()
  }

  /** Bans a peer for `ms` milliseconds if it is for the first time, and for longer the more often it was. One that is under a ban keeps the longer of the two. */
  add(peerId: string, ms: number, reason: string): Ban {
    this.#forgetOld()
    const now = this.#now()
    const before = this.#current(peerId)
    const times = (before?.times ?? 0) + 1
    const until = now + Math.min(MAX_BAN_MS, ms * 2 ** (times - 1))
    const ban = { peerId, reason, since: now, until: Math.max(until, before?.until ?? 0), times }
    this.#bans.set(peerId, ban)
    this.#store?.put(ban)
    return ban
  }

  has(peerId: string): boolean {
    return (this.#current(peerId)?.until ?? 0) > this.#now()
  }

  /** The bans that are in force. */
  list(): Ban[] {
    return [...this.#bans.values()].filter(({ peerId }) => this.has(peerId))
  }

  /** Ends a ban, and forgets those before it; undefined where there is none in force. */
  lift(peerId: string): Ban | undefined {
    const ban = this.has(peerId) ? this.#bans.get(peerId) : undefined
    if (ban !== undefined) this.#remove(peerId)
    return ban
  }

  /** A ban of a time to come was made while the clock was ahead: it begins anew, since it would last for as long as the clock was wrong. */
  #current(peerId: string): Ban | undefined {
    const ban = this.#bans.get(peerId)
    const now = this.#now()
    if (ban === undefined || ban.since <= now + CLOCK_SKEW_MS) return ban
    const begun = { ...ban, since: now, until: now + (ban.until - ban.since) }
    this.#bans.set(peerId, begun)
    this.#store?.put(begun)
    return begun
  }

  #forgetOld(): void {
    const past = this.#now() - BAN_MEMORY_MS
    for (const { peerId, until } of this.#bans.values()) if (until <= past) this.#remove(peerId)
  }

  #remove(peerId: string): void {
    this.#bans.delete(peerId)
    this.#store?.remove(peerId)
  }
}
