import type { SwarmPeer, Want } from './peer.ts'
import type { ChunkSizes } from './pick.ts'

/** A peer is asked for what another one owes only where it has it this much sooner. */
const GAIN = 2
const GAIN_MS = 300
/** Bytes that a peer may be sending at this moment: to call those off would be too late. */
const ON_THE_WAY_BYTES = 256 * 1024

/** A chunk that comes late. */
export interface LateChunk {
  readonly chunk: number
  readonly owner: SwarmPeer
  readonly want: Want
  /** Whether its owner need not send it; what may be on its way is asked for twice. */
  readonly isMoved: boolean
}

/**
 * The chunks that `peer` would send well before those who owe them, the latest ones first: as many as make both end at
 * the same time.
 */
export function lateChunks(
  peer: SwarmPeer, all: Iterable<SwarmPeer>, { chunks, isClaimedOnce }: { chunks: ChunkSizes, isClaimedOnce: (chunk: number) => boolean },
): LateChunk[] {
  const slowest = [...all].filter(other => other !== peer && other.inFlight > 0).sort((a, b) => b.milliseconds() - a.milliseconds())
  for (const owner of slowest) {
    const late: LateChunk[] = []
    let bytes = 0
    for (const { chunk, want } of latestFirst(owner)) {
      if (!isClaimedOnce(chunk) || !peer.has(chunk)) continue
      const length = chunks.length(chunk)
      if (owner.milliseconds(-bytes) < GAIN * peer.milliseconds(bytes + length) + GAIN_MS) break
      bytes += length
      late.push({ chunk, owner, want, isMoved: owner.inFlight - bytes > ON_THE_WAY_BYTES })
    }
    if (late.length > 0) return late.sort((a, b) => a.chunk - b.chunk)
  }
  return []
}

function* latestFirst({ wants }: SwarmPeer): Generator<{ chunk: number, want: Want }> {
  for (const want of [...wants.values()].reverse()) {
    if (want.choice !== undefined || !want.claimed) continue
    for (const chunk of [...want.pending].reverse()) yield { chunk, want }
  }
}
