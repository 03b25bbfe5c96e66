import { MAX_SWARM_PEERS_NAMED } from '../../limits.ts'

/** A peer that is asked for chunks. */
export interface Source {
  readonly peerId: string
  /** Bytes that it owes. */
  readonly inFlight: number
  /** When it last sent something. */
  readonly heardAt: number
}

/** Milliseconds without a byte after which a source makes room for another peer, and from one such exchange to the next. */
const IDLE_MS = 1500
const EXCHANGE_MS = 500

/**
 * The peers of a swarm that are not asked because enough others are. In a large swarm those who came at the same time know each other, and soon have the
 * same chunks: whoever has nothing to give is exchanged for one that was not tried, so that all of the swarm come to share what any of it has.
 */
export class Spares {
  readonly #random: () => number
  readonly #peerIds = new Set<string>()
  readonly #joinedAt = new Map<string, number>()
  #exchangedAt = -Infinity

  constructor(random: () => number = Math.random) {
    this.#random = random
  }

  /** A peer for which there is no room; of too many the first is forgotten. */
  add(peerId: string): void {
    this.#peerIds.add(peerId)
    const [first = peerId] = this.#peerIds
    if (this.#peerIds.size > MAX_SWARM_PEERS_NAMED) this.#peerIds.delete(first)
  }

  joined(peerId: string, now: number): void {
    this.#joinedAt.set(peerId, now)
  }

  left(peerId: string): void {
    this.#joinedAt.delete(peerId)
  }

  /** Which of the sources to leave, and whom to ask instead; undefined where all are of use, where nobody else is free, or a moment after the last time. */
  exchange(now: number, sources: Iterable<Source>, isFree: (peerId: string) => boolean): { readonly leave: string, readonly ask: string } | undefined {
    if (now - this.#exchangedAt < EXCHANGE_MS || this.#peerIds.size === 0) return undefined
    let [leave, since]: [string | undefined, number] = [undefined, now - IDLE_MS]
    for (const { peerId, inFlight, heardAt } of sources) {
      const idleSince = Math.max(heardAt, this.#joinedAt.get(peerId) ?? now)
      if (inFlight <= 0 && idleSince < since) [leave, since] = [peerId, idleSince]
    }
    if (leave === undefined) return undefined
    this.#exchangedAt = now
    const free = [...this.#peerIds].filter(isFree)
    const ask = free[Math.floor(this.#random() * free.length)]
    if (ask === undefined) return undefined
    this.#peerIds.delete(ask)
    this.add(leave)
    return { leave, ask }
  }
}
