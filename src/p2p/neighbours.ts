import type { AbortOptions } from '@libp2p/interface'
import { FIND_TIMEOUT_MS } from '../limits.ts'

/** Milliseconds after the last new peer at which to ask: soon, and again when the peers that came with it are known too. */
const ASK_AFTER_MS = [300, 1500, 5000, 20_000]

export interface NeighboursComponents {
  /** The DHT's peers; tells of each that comes. */
  readonly table: { addEventListener(type: 'peer:add', listener: () => void): void }
  /** Looks up who is nearest to this host; whoever is named thereby is heard of. */
  readonly lookUp: (options: AbortOptions) => AsyncIterable<unknown>
}

/**
 * Asks the DHT for this host's neighbours as its table grows. Two hosts that join through the same third at the same moment
 * are not named to each other yet when they first ask, and the DHT itself asks again only after a long time.
 */
export class Neighbours {
  readonly #components: NeighboursComponents
  readonly #stopping = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(components: NeighboursComponents) {
    this.#components = components
  }

  start(): void {
    this.#components.table.addEventListener('peer:add', () => { this.#schedule(ASK_AFTER_MS) })
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#stopping.abort()
  }

  #schedule([next, ...later]: readonly number[]): void {
    clearTimeout(this.#timer)
    if (next === undefined || this.#stopping.signal.aborted) return
    this.#timer = setTimeout(() => {
      void this.#ask()
      this.#schedule(later)
    }, next).unref()
  }

  async #ask(): Promise<void> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(FIND_TIMEOUT_MS)])
    try {
      const events = this.#components.lookUp({ signal })[Symbol.asyncIterator]()
      while ((await events.next()).done !== true) signal.throwIfAborted()
    } catch {
      // Whoever was named before the failure is heard of; the next peer is a new occasion.
    }
  }
}
