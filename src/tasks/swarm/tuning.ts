import { MAX_SWARM_WANTS } from '../../limits.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** How the scheduler spends the peers it has; found by simulation. */
export const TUNING = {
  /** Milliseconds of a peer's sending that are asked for in advance: what covers the round trip, and no more than a slow peer may hold up. */
  horizonMs: 1000,
  /** Bytes asked for in advance of a peer that has sent something right, at least and at most. */
  minAheadBytes: 128 * KIB,
  maxAheadBytes: 16 * MIB,
  /** Wants of one peer that have not ended, at most. */
  maxWants: MAX_SWARM_WANTS,
  /** Bytes of one want at most: what can be taken back, or answered `busy`, as a whole. */
  maxWantBytes: 2 * MIB,
  /** Bytes of one run: small enough to spread, large enough to be read from a disk in one go. */
  runBytes: 512 * KIB,
  /** Missing chunks, the first ones of the image, that are looked at to find the rarest: some 32 MiB. */
  sample: 512,
  /** Holders up to which a chunk is rare. */
  rare: 2,
  /** How many times as much is named as is wanted where a peer alone has the chunks: it gives those that it has given least. */
  choice: 8,
  /** Milliseconds without a byte after which others may be asked for what a peer owes. */
  stallMs: 3000,
  /** Milliseconds from one look for late chunks to the next, of each peer, when nothing else is left to ask for. */
  endGameMs: 50,
}

export type Tuning = typeof TUNING
