import type { SwarmPeer } from './peer.ts'
import type { ChunkSizes } from './pick.ts'

/** A peer is asked for what another one owes only where it has it this much sooner. */
const GAIN = 1.5
const GAIN_MS = 100

/**
 * The chunks that `peer` would send well before those who owe them, the latest ones first: as many as make both end at
 * the same time.
 */
export function lateChunks(
  peer: SwarmPeer, all: Iterable<SwarmPeer>, { chunks, isClaimedOnce }: { chunks: ChunkSizes, isClaimedOnce: (chunk: number) => boolean },
): number[] {
  const slowest = [...all].filter(other => other !== peer && other.inFlight > 0).sort((a, b) => b.milliseconds() - a.milliseconds())
  for (const owner of slowest) {
    const late: number[] = []
    let bytes = 0
    for (const chunk of latestFirst(owner)) {
      if (!isClaimedOnce(chunk) || !peer.has(chunk)) continue
      bytes += chunks.length(chunk)
      if (owner.milliseconds(-bytes + chunks.length(chunk)) < GAIN * peer.milliseconds(bytes) + GAIN_MS) break
      late.push(chunk)
    }
    if (late.length > 0) return late.sort((a, b) => a - b)
  }
  return []
}

function* latestFirst({ wants }: SwarmPeer): Generator<number> {
  for (const { pending, choice, claimed } of [...wants.values()].reverse()) {
    if (choice === undefined && claimed) yield* [...pending].reverse()
  }
}
