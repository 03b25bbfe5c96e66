import { messageOf, NarvikError } from '../../errors.ts'
import { NarHash } from '../../image/nar-hash.ts'
import { USE_FLUSH_MS } from '../../limits.ts'
import type { Logger } from '../../log.ts'
import type { Catalog } from '../../store/catalog.ts'

export interface UsesParts {
  readonly catalog: { readonly keeping: Pick<Catalog['keeping'], 'markUsed'> }
  readonly logger: Logger
}

/**
 * Which images are in use, and when each last was. A use is put down in memory and reaches the catalog once in a while, so that a
 * thousand requests are one write; what a crash loses of it makes an image look unused for a little longer than it is.
 */
export class Uses {
  readonly #parts: UsesParts
  readonly #now: () => number
  readonly #last = new Map<string, number>()
  readonly #unwritten = new Set<string>()
  readonly #held = new Map<string, number>()
  readonly #leaving = new Set<string>()
  /** What ends each exchange in which an image is being served. */
  readonly #serving = new Map<string, Set<AbortController>>()
  #timer: NodeJS.Timeout | undefined

  constructor(parts: UsesParts, { now = Date.now }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#now = now
  }

  start(): void {
    this.#timer = setInterval(() => { this.flush() }, USE_FLUSH_MS).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.flush()
  }

  /** The image was used just now: served, fetched, exported or named. */
  touch(narHash: NarHash): void {
    const key = narHash.toNix32()
    this.#last.set(key, this.#now())
    this.#unwritten.add(key)
  }

  /** Keeps an image from being collected until it is disposed of; the end of it is a use. */
  hold(narHash: NarHash): Disposable {
    const key = narHash.toNix32()
    this.#held.set(key, (this.#held.get(key) ?? 0) + 1)
    this.touch(narHash)
    return {
      [Symbol.dispose]: () => {
        const left = (this.#held.get(key) ?? 1) - 1
        if (left > 0) this.#held.set(key, left)
        else this.#held.delete(key)
        this.touch(narHash)
      },
    }
  }

  /** As `hold`, for a peer that is sent the image; `signal` aborts when it may have no more of it. */
  serve(narHash: NarHash): Disposable & { readonly signal: AbortSignal } {
    const key = narHash.toNix32()
    const held = this.hold(narHash)
    const exchange = new AbortController()
    const all = this.#serving.get(key) ?? new Set()
    this.#serving.set(key, all.add(exchange))
    return {
      signal: exchange.signal,
      [Symbol.dispose]: () => {
        held[Symbol.dispose]()
        if (all.delete(exchange) && all.size === 0) this.#serving.delete(key)
      },
    }
  }

  /** Ends what peers are being sent of an image. */
  cut(narHash: NarHash): void {
    for (const exchange of this.#serving.get(narHash.toNix32()) ?? []) {
      exchange.abort(new NarvikError('interrupted', `Cannot go on with ${narHash.toSri()}: found it served no longer, needed an image that is`))
    }
  }

  isHeld(narHash: NarHash): boolean {
    return this.#held.has(narHash.toNix32())
  }

  /** When the image was last used, as far as this run of the daemon has seen; milliseconds since 1970. */
  lastUse(narHash: NarHash): number | undefined {
    return this.#last.get(narHash.toNix32())
  }

  /** The image is about to go: until it is disposed of, peers are told that it is not here. */
  leave(narHash: NarHash): Disposable {
    const key = narHash.toNix32()
    this.#leaving.add(key)
    return { [Symbol.dispose]: () => { this.#leaving.delete(key) } }
  }

  isLeaving(narHash: NarHash): boolean {
    return this.#leaving.has(narHash.toNix32())
  }

  /** Writes what was used since the last time. */
  flush(): void {
    if (this.#unwritten.size === 0) return
    try {
      this.#parts.catalog.keeping.markUsed(Array.from(this.#unwritten, key => [NarHash.parse(key), new Date(this.#last.get(key) ?? 0)] as const))
      // What the catalog knows need not be known twice.
      for (const key of this.#unwritten) if (!this.#held.has(key)) this.#last.delete(key)
      this.#unwritten.clear()
    } catch (error) {
      this.#parts.logger.warn('cannot put down when images were used', { reason: messageOf(error) })
    }
  }
}
