import { NarvikError } from '../../errors.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../../image/chunk-set.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import { MAX_SWARM_PEERS_NAMED } from '../../limits.ts'
import type { EndStatus } from './desk.ts'

interface OpenWant {
  /** Those that may still come. */
  readonly pending: Set<number>
  /** Those of them that need not come. */
  readonly cancelled: Set<number>
  /** Bytes that the peer may choose of `pending`; undefined once it has. */
  choice: number | undefined
}

/**
 * What a peer has said and owes in one session. Whatever it does against the protocol is thrown as `peer-failed`: each message either
 * gives something that was asked for or says something new, so that none can go on for ever.
 */
export class Owed {
  readonly #chunks: ChunkList
  readonly #announced: ChunkSet
  readonly #wants = new Map<number, OpenWant>()
  readonly #named = new Set<string>()

  constructor(chunks: ChunkList) {
    this.#chunks = chunks
    this.#announced = new ChunkSet(chunks.count)
  }

  asked(id: number, runs: readonly ChunkRun[], choice: number | undefined): void {
    this.#wants.set(id, { pending: new Set(chunksOf(runs)), cancelled: new Set(), choice })
  }

  cancelled(id: number, runs: readonly ChunkRun[]): void {
    const want = this.#wants.get(id)
    for (const chunk of chunksOf(runs)) if (want?.pending.has(chunk) === true) want.cancelled.add(chunk)
  }

  announced(runs: readonly ChunkRun[]): void {
    if (runs.length === 0) throw broken('an announcement of nothing', 'some chunk')
    for (const chunk of chunksOf(runs)) if (!this.#announced.add(chunk)) throw broken(`chunk ${chunk} announced again`, 'each once')
  }

  named(peerIds: readonly string[]): void {
    if (peerIds.length === 0) throw broken('a list of no peers', 'some')
    for (const peerId of peerIds) {
      if (this.#named.has(peerId)) throw broken('a peer named again', 'each once')
      this.#named.add(peerId)
    }
    if (this.#named.size > MAX_SWARM_PEERS_NAMED) throw broken(`more than ${MAX_SWARM_PEERS_NAMED} peers named`, 'no more')
  }

  chosen(id: number, runs: readonly ChunkRun[]): void {
    const want = this.#wants.get(id)
    if (want?.choice === undefined) throw broken(`a choice for want ${id}`, 'one for a want that leaves it')
    const chosen = new Set(chunksOf(runs))
    let bytes = 0
    for (const chunk of chosen) {
      if (!want.pending.has(chunk)) throw broken(`chunk ${chunk} chosen for want ${id}`, 'one that the want names')
      bytes += this.#chunks.length(chunk)
    }
    if (chosen.size === 0 || (chosen.size > 1 && bytes > want.choice)) throw broken(`${bytes} bytes chosen for want ${id}`, `one chunk, or at most ${want.choice}`)
    for (const chunk of want.pending) if (!chosen.has(chunk)) want.pending.delete(chunk)
    want.choice = undefined
  }

  /** Chunks are on their way in. */
  arrive(id: number, run: ChunkRun): void {
    const want = this.#wants.get(id)
    if (want === undefined || want.choice !== undefined) throw broken(`chunks for want ${id}`, 'chunks that were asked for')
    if (run.count < 1 || run.first + run.count > this.#chunks.count) throw broken(`chunks ${run.first} to ${run.first + run.count}`, `some below ${this.#chunks.count}`)
    for (const chunk of chunksOf([run])) {
      if (!want.pending.delete(chunk)) throw broken(`chunk ${chunk} for want ${id}`, 'chunks that were asked for')
      want.cancelled.delete(chunk)
    }
  }

  ended(id: number, status: EndStatus): void {
    const want = this.#wants.get(id)
    if (want === undefined) throw broken(`the end of want ${id}`, 'the end of one that is open')
    if (status === 'done' && want.pending.size > want.cancelled.size) throw broken(`want ${id} done without ${want.pending.size} of its chunks`, 'all of them')
    this.#wants.delete(id)
  }

  /** The peer ends the session; whoever still owes something has not ended it but gone. */
  checkNothingOwed(): void {
    if (this.#wants.size > 0) throw broken('the end of the stream', 'what was asked for')
  }
}

function broken(found: string, needed: string): NarvikError {
  return new NarvikError('peer-failed', `Cannot go on with the session: found ${found}, needed ${needed}`)
}
