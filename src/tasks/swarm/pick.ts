import type { ChunkRun, ChunkSet } from '../../image/chunk-set.ts'
import type { SwarmPeer } from './peer.ts'
import type { Tuning } from './tuning.ts'

/** The chunks of an image as the scheduler sees them. */
export interface ChunkSizes {
  readonly count: number
  /** Bytes of a chunk. */
  length(chunk: number): number
}

/** What there is to pick from. */
export interface Field {
  readonly chunks: ChunkSizes
  /** Missing chunks that nobody was asked for. */
  readonly open: ChunkSet
  /** Peers known to have a chunk. */
  readonly holders: (chunk: number) => number
  /** Peers that have all: no chunk has fewer holders. */
  readonly wholes: () => number
  readonly random: () => number
}

/** What to ask a peer for: all of `runs`, or `choice` bytes of them that the peer chooses. */
export interface Pick {
  readonly runs: readonly ChunkRun[]
  readonly choice: number | undefined
}

interface Candidate {
  first: number
  count: number
  bytes: number
  readonly holders: number
  readonly lot: number
}

/**
 * About `bytes` of the rarest chunks of `peer` among its first ones that are open, in runs; undefined where it has none. Where they are chunks that no
 * other peer has, the peer is given the choice among more of them.
 *
 * So a host asks at random within a window that moves through the image. It is wide enough for hosts that start together to have different chunks, and what has
 * come lies together: it can be hashed while the rest comes, is told of in a few runs, and is written and read again in one go.
 */
export function pick(field: Field, peer: SwarmPeer, bytes: number, tuning: Tuning): Pick | undefined {
  const candidates = candidatesOf(field, peer, tuning)
  const [rarest] = candidates
  if (rarest === undefined) return undefined
  if (rarest.holders > 1 || !peer.proven) return { runs: sorted(take(field, candidates, bytes)), choice: undefined }
  const own = candidates.filter(({ holders }) => holders === rarest.holders)
  const named = take(field, own, bytes * tuning.choice)
  const total = named.reduce((sum, run) => sum + run.bytes, 0)
  return { runs: sorted(named), choice: total > bytes ? bytes : undefined }
}

/**
 * What of the peer's window is rare. A peer that has all is asked for what is rare beyond it, where all of the window is common: a host that comes late
 * finds its first chunks with many, and would keep the one that has the last ones from sending them to those who are ahead.
 */
function candidatesOf(field: Field, peer: SwarmPeer, tuning: Tuning): Candidate[] {
  const near = sample(field, peer, { start: 0, end: Infinity, most: tuning.sample }, tuning).sort(byRarity)
  const [rarest] = near
  if (rarest === undefined || peer.have !== undefined || rarest.holders <= Math.max(tuning.rare, field.wholes())) return near
  const part = field.chunks.count / PLACES
  const far = Array.from({ length: PLACES }, (_, place) => sample(field, peer, { start: Math.floor((place + field.random()) * part), end: (place + 1) * part, most: tuning.sample / PLACES }, tuning)).flat().sort(byRarity)
  return (far[0]?.holders ?? Infinity) < rarest.holders ? far : near
}

/** Of the image, at which what is rare is looked for. */
const PLACES = 8

function byRarity(one: Candidate, other: Candidate): number {
  return one.holders - other.holders || one.lot - other.lot
}

/** At most so many open chunks, from one to before another. */
interface Window {
  readonly start: number
  readonly end: number
  readonly most: number
}

/** Runs of open chunks of the peer within a window, each of chunks that are equally rare. */
function sample({ chunks, open, holders, random }: Field, peer: SwarmPeer, { start, end, most }: Window, { runBytes }: Tuning): Candidate[] {
  const runs: Candidate[] = []
  let run: Candidate | undefined
  let seen = 0
  for (let chunk = open.next(start, peer.have); chunk !== undefined && chunk < end && seen < most; chunk = open.next(chunk + 1, peer.have)) {
    const [length, known] = [chunks.length(chunk), holders(chunk)]
    seen += 1
    if (run?.holders === known && chunk === run.first + run.count && run.bytes + length <= runBytes) {
      run.count += 1
      run.bytes += length
    } else {
      run = { first: chunk, count: 1, bytes: length, holders: known, lot: random() }
      runs.push(run)
    }
  }
  return runs
}

/** The first runs of `bytes` in all, the last one cut; at least one chunk. */
function take({ chunks }: Field, candidates: readonly Candidate[], bytes: number): Candidate[] {
  const taken: Candidate[] = []
  let left = bytes
  for (const run of candidates) {
    if (run.bytes <= left) {
      taken.push(run)
      left -= run.bytes
      continue
    }
    const part = { ...run, count: 0, bytes: 0 }
    for (let chunk = run.first; chunk < run.first + run.count; chunk++) {
      const length = chunks.length(chunk)
      if (part.bytes + length > left && (taken.length > 0 || part.count > 0)) break
      part.count += 1
      part.bytes += length
    }
    if (part.count > 0) taken.push(part)
    break
  }
  return taken
}

function sorted(runs: readonly Candidate[]): ChunkRun[] {
  return runs.map(({ first, count }) => ({ first, count })).sort((a, b) => a.first - b.first)
}
