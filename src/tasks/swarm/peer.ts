import { ChunkSet } from '../../image/chunk-set.ts'
import { Rate } from './rate.ts'
import type { Tuning } from './tuning.ts'

/** Chunks that were asked of a peer in one message. */
export interface Want {
  readonly id: number
  /** Those that have not come yet; while `choice` is set, those among which the peer chooses. */
  readonly pending: Set<number>
  /** Bytes that the peer may choose; undefined once it has, or where it has no choice. */
  choice: number | undefined
  /** Whether nobody else is asked for what is pending. */
  claimed: boolean
}

/** What the scheduler knows of one peer. */
export class SwarmPeer {
  readonly id: string
  /** The chunks that it has; undefined: all of them. */
  have: ChunkSet | undefined
  readonly wants = new Map<number, Want>()
  readonly rate = new Rate()
  /** Bytes that were asked for and have not come. */
  inFlight = 0
  /** Whether it has no room for this host at the moment, and will say when it has. */
  busy = false
  /** Whether it owes chunks and sends nothing; the time at which it last sent something. */
  stalled = false
  heardAt = 0
  /** Whether it did not send a chunk that it had announced, and so is asked for that no more. */
  lacks = false
  /** Whether a chunk of it was right. */
  proven = false
  /** Whether it has nothing that is missing and nobody was asked for. */
  isExhausted = false
  /** When to look next for late chunks that it could send sooner. */
  endGameAt = 0
  #nextWant = 1

  constructor(id: string, capacity: number) {
    this.id = id
    this.have = new ChunkSet(capacity)
  }

  has(chunk: number): boolean {
    return this.have?.has(chunk) ?? true
  }

  nextWantId(): number {
    return this.#nextWant++
  }

  /** Bytes that may be asked of it in advance; a peer that has proven nothing yet is given one chunk to do so. */
  ahead({ horizonMs, minAheadBytes, maxAheadBytes }: Tuning): number {
    if (!this.proven) return 1
    const covered = (this.rate.bytesPerSecond ?? 0) * horizonMs / 1000
    return Math.min(Math.max(covered, minAheadBytes), maxAheadBytes)
  }

  /** Bytes that should be asked of it now. */
  room(tuning: Tuning): number {
    if (this.busy || this.stalled || this.wants.size >= tuning.maxWants) return 0
    const ahead = this.ahead(tuning)
    const room = ahead - this.inFlight
    // A few large wants instead of many small ones.
    return this.inFlight > 0 && room < ahead / 2 ? 0 : Math.min(room, tuning.maxWantBytes)
  }

  /** Milliseconds until all that it owes, and `more` bytes, are there. */
  milliseconds(more = 0): number {
    return (this.inFlight + more) * 1000 / Math.max(this.rate.bytesPerSecond ?? 0, 1)
  }
}
