import { MAX_IN_FLIGHT_BYTES, MAX_PEER_IN_FLIGHT_BYTES } from '../limits.ts'
import type { Stage } from './stages.ts'

export interface InFlightInit {
  /** Bytes for one peer, and for all. */
  readonly perPeer?: number
  readonly inAll?: number
}

/** What is read for one peer and on its way to it. */
export interface Flight {
  /**
   * Room for so many bytes, until it is disposed of; waits for it. A peer for which nothing is on the way always gets what it asks for, so that
   * no others can keep it from being served. Rejects with the signal's reason.
   */
  take(bytes: number, signal: AbortSignal): Promise<Disposable>
}

interface Waiting {
  readonly peer: Peer
  readonly bytes: number
  readonly go: () => void
}

interface Peer {
  bytes: number
}

/** Bounds the bytes that this host has read for peers and not got rid of: a peer that takes nothing holds up itself, and nobody else. */
export class InFlight {
  readonly #perPeer: number
  readonly #inAll: number
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiting>()
  #total = 0

  constructor({ perPeer = MAX_PEER_IN_FLIGHT_BYTES, inAll = MAX_IN_FLIGHT_BYTES }: InFlightInit = {}) {
    this.#perPeer = perPeer
    this.#inAll = inAll
  }

  /** Bytes on the way to all peers. */
  get total(): number {
    return this.#total
  }

  /** The flight of one peer: to be made once for each. */
  newPeer(): Flight {
    const peer: Peer = { bytes: 0 }
    return { take: (bytes, signal) => this.#take(peer, bytes, signal) }
  }

  async #take(peer: Peer, bytes: number, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted()
    if (this.#hasRoom(peer, bytes)) return this.#hold(peer, bytes)
    const { promise, resolve, reject } = Promise.withResolvers<Disposable>()
    const waiting: Waiting = { peer, bytes, go: () => { signal.removeEventListener('abort', onAbort); resolve(this.#hold(peer, bytes)) } }
    const onAbort = (): void => {
      this.#waiting.delete(waiting)
      reject(signal.reason as Error)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    this.#waiting.add(waiting)
    return promise
  }

  #hasRoom(peer: Peer, bytes: number): boolean {
    return peer.bytes === 0 || (peer.bytes + bytes <= this.#perPeer && this.#total + bytes <= this.#inAll)
  }

  #hold(peer: Peer, bytes: number): Disposable {
    peer.bytes += bytes
    this.#total += bytes
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        peer.bytes -= bytes
        this.#total -= bytes
        this.#letGo()
      },
    }
  }

  #letGo(): void {
    for (const waiting of this.#waiting) {
      if (!this.#hasRoom(waiting.peer, waiting.bytes)) continue
      this.#waiting.delete(waiting)
      waiting.go()
    }
  }
}

/** Has a source read its next buffer, of at most so many bytes, when there is room for it; it is in flight until the one after it is asked for. */
export function inFlight(flight: Flight | undefined, bytes: number, signal: AbortSignal): Stage {
  return async function* (source) {
    const buffers = source[Symbol.asyncIterator]()
    try {
      while (true) {
        using _held = await flight?.take(bytes, signal)
        const step = await buffers.next()
        if (step.done === true) return
        yield step.value
      }
    } finally {
      await buffers.return?.()
    }
  }
}
