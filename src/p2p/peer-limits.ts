import { DHT_BURST, DHT_MESSAGES_PER_SECOND, MAX_EXCHANGES, MAX_PEER_EXCHANGES, REQUEST_BURST, REQUESTS_PER_SECOND } from '../limits.ts'
import { InFlight } from './in-flight.ts'
import { Slots } from './slots.ts'

export interface PeerLimitsInit {
  /** Exchanges that are served at once: to one peer, and to all. */
  readonly perPeer?: number
  readonly inAll?: number
  readonly requests?: Allowance
  readonly dhtMessages?: Allowance
  readonly inFlight?: InFlight
  /** Milliseconds of a clock that only goes forward. */
  readonly now?: () => number
}

/** What somebody may do: so many at once, and then so many a second. */
export interface Allowance {
  readonly burst: number
  readonly perSecond: number
}

const DEFAULTS: Required<Omit<PeerLimitsInit, 'inFlight'>> = {
  perPeer: MAX_PEER_EXCHANGES,
  inAll: MAX_EXCHANGES,
  requests: { burst: REQUEST_BURST, perSecond: REQUESTS_PER_SECOND },
  dhtMessages: { burst: DHT_BURST, perSecond: DHT_MESSAGES_PER_SECOND },
  now: () => performance.now(),
}

/** What one peer may ask of this host, and all of them together; a host that keeps to its own limits never meets these. */
export class PeerLimits {
  /** Bytes on their way to peers. */
  readonly inFlight: InFlight
  readonly #init: typeof DEFAULTS
  readonly #all: Slots
  readonly #peers = new Map<string, Slots>()
  readonly #requests: Meter
  readonly #dhtMessages: Meter

  constructor(init: PeerLimitsInit = {}) {
    this.inFlight = init.inFlight ?? new InFlight()
    this.#init = { ...DEFAULTS, ...init }
    this.#all = new Slots(this.#init.inAll)
    this.#requests = new Meter(this.#init.requests, this.#init.now)
    this.#dhtMessages = new Meter(this.#init.dhtMessages, this.#init.now)
  }

  /** Room for one exchange, to be given back by calling what is returned; undefined where the peer, or all of them, have none left. */
  admit(peerId: string): (() => void) | undefined {
    if (!this.#requests.takes(peerId)) return undefined
    const own = this.#peers.get(peerId) ?? new Slots(this.#init.perPeer)
    this.#peers.set(peerId, own)
    const release = own.take()
    const releaseAll = release === undefined ? undefined : this.#all.take()
    if (release === undefined || releaseAll === undefined) {
      release?.()
      return undefined
    }
    return () => {
      release()
      releaseAll()
    }
  }

  /** Whether a message of the DHT is answered. */
  admitDht(peerId: string): boolean {
    return this.#dhtMessages.takes(peerId)
  }

  /** Drops what is kept of peers that have nothing open and all of their allowance. */
  forgetIdle(): void {
    for (const [peerId, slots] of this.#peers) if (slots.free === this.#init.perPeer) this.#peers.delete(peerId)
    this.#requests.forgetIdle()
    this.#dhtMessages.forgetIdle()
  }
}

/** Counts what each peer does against its allowance, which refills as time goes by. */
class Meter {
  readonly #allowance: Allowance
  readonly #now: () => number
  readonly #left = new Map<string, { left: number, at: number }>()

  constructor(allowance: Allowance, now: () => number) {
    this.#allowance = allowance
    this.#now = now
  }

  takes(peerId: string): boolean {
    const { burst } = this.#allowance
    const now = this.#now()
    const before = this.#left.get(peerId) ?? { left: burst, at: now }
    const left = this.#refilled(before, now)
    this.#left.set(peerId, { left: left >= 1 ? left - 1 : left, at: now })
    return left >= 1
  }

  forgetIdle(): void {
    const now = this.#now()
    for (const [peerId, state] of this.#left) if (this.#refilled(state, now) >= this.#allowance.burst) this.#left.delete(peerId)
  }

  #refilled({ left, at }: { left: number, at: number }, now: number): number {
    return Math.min(this.#allowance.burst, left + (now - at) / 1000 * this.#allowance.perSecond)
  }
}
