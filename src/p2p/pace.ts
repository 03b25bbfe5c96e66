import { setTimeout as delay } from 'node:timers/promises'
import { WIRE_BUFFER_BYTES } from '../limits.ts'

/** Bytes per second in each direction, of all peers together and of each one; null: as fast as it goes. */
export interface RateLimits {
  readonly upload: number | null
  readonly download: number | null
  readonly uploadPerPeer: number | null
  readonly downloadPerPeer: number | null
}

export const NO_LIMITS: RateLimits = { upload: null, download: null, uploadPerPeer: null, downloadPerPeer: null }

/** Holds the bodies of one peer's exchanges back, so that the limits are kept. Undefined where there is nothing to wait for. */
export interface Pace {
  /** To be awaited before bytes are sent. Resolves early where the signal aborts. */
  sending(bytes: number, signal: AbortSignal): Promise<void> | undefined
  /** To be awaited after bytes were taken: not taking more is what slows the peer down. */
  taking(bytes: number, signal: AbortSignal): Promise<void> | undefined
}

/** Milliseconds of its rate that a bucket holds: what a busy event loop may be late by without the rate falling short. */
const BURST_MS = 250

/**
 * A number of bytes per second. Whoever takes more than there is owes it, and waits until it has come in; so the takers are served in the
 * order in which they came, and however late a timer is, no byte of the rate is lost or gained beyond the burst.
 */
export class TokenBucket {
  readonly #now: () => number
  #bytesPerSecond: number | null
  #level = 0
  #at: number

  /** `now` gives milliseconds of any one clock. */
  constructor(bytesPerSecond: number | null, now: () => number) {
    this.#bytesPerSecond = bytesPerSecond
    this.#now = now
    this.#at = now()
  }

  set bytesPerSecond(rate: number | null) {
    this.#fill()
    this.#bytesPerSecond = rate
    this.#fill()
  }

  /** Takes the bytes and returns the milliseconds after which they may go. */
  take(bytes: number): number {
    if (this.#bytesPerSecond === null) return 0
    this.#fill()
    this.#level -= bytes
    return this.#level >= 0 ? 0 : -this.#level * 1000 / this.#bytesPerSecond
  }

  #fill(): void {
    const now = this.#now()
    const rate = this.#bytesPerSecond
    // At least a whole buffer, or a low rate would be lower still.
    this.#level = rate === null ? 0 : Math.min(Math.max(rate * BURST_MS / 1000, WIRE_BUFFER_BYTES), this.#level + (now - this.#at) * rate / 1000)
    this.#at = now
  }
}

export interface PacesInit {
  readonly now?: (() => number) | undefined
  readonly sleep?: ((ms: number, signal: AbortSignal) => Promise<void>) | undefined
}

/** The limits of this host, over the exchanges of all protocols. */
export class Paces {
  readonly #now: () => number
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  readonly #upload: TokenBucket
  readonly #download: TokenBucket
  readonly #perPeer = new Map<string, { readonly upload: TokenBucket, readonly download: TokenBucket }>()
  #limits: RateLimits

  constructor(limits: RateLimits = NO_LIMITS, { now = () => performance.now(), sleep = sleepQuietly }: PacesInit = {}) {
    this.#limits = limits
    this.#now = now
    this.#sleep = sleep
    this.#upload = new TokenBucket(limits.upload, now)
    this.#download = new TokenBucket(limits.download, now)
  }

  /** Puts other limits into force, also for what is going on. */
  configure(limits: RateLimits): void {
    this.#limits = limits
    this.#upload.bytesPerSecond = limits.upload
    this.#download.bytesPerSecond = limits.download
    for (const { upload, download } of this.#perPeer.values()) {
      upload.bytesPerSecond = limits.uploadPerPeer
      download.bytesPerSecond = limits.downloadPerPeer
    }
  }

  of(peerId: string): Pace {
    const own = { upload: new TokenBucket(this.#limits.uploadPerPeer, this.#now), download: new TokenBucket(this.#limits.downloadPerPeer, this.#now) }
    this.#perPeer.set(peerId, own)
    return {
      sending: (bytes, signal) => this.#wait(Math.max(own.upload.take(bytes), this.#upload.take(bytes)), signal),
      taking: (bytes, signal) => this.#wait(Math.max(own.download.take(bytes), this.#download.take(bytes)), signal),
    }
  }

  #wait(ms: number, signal: AbortSignal): Promise<void> | undefined {
    return ms === 0 ? undefined : this.#sleep(ms, signal)
  }
}

/** Whoever sleeps finds out by what it does next that it was given up. */
async function sleepQuietly(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined)
}
