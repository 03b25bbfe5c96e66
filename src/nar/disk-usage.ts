import type { Listing } from '../image/listing.ts'
import type { Layout } from './layout.ts'
import { BLOCK_BYTES } from './sparse.ts'
import { runTask } from './thread/pool.ts'

/** What a tree takes. */
export interface DiskUsage {
  /** Bytes of its files, holes and all. */
  readonly apparentBytes: number
  /** Bytes of the blocks that it has on disk: fewer where files are sparse, more where they are small. */
  readonly diskBytes: number
}

/** Bytes of a symlink's target that fit beside its other data. */
const INLINE_TARGET_BYTES = 59

/**
 * What is at `path`: a tree, a part of one, or nothing. What goes while it is looked at is not counted. Blocks that are shared with other
 * files by reflinks count in full: no file system tells cheaply.
 * @throws NarvikError `unreadable`, `io-error`.
 */
export async function measureTree(path: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<DiskUsage> {
  const { apparentBytes = 0, diskBytes = 0 } = await runTask({ task: 'measure', root: path }, { signal })
  return { apparentBytes, diskBytes }
}

/** The most that a tree with this listing takes on a usual file system: whole blocks, no holes. */
export function diskBytesOf(listing: Listing): number {
  let bytes = 0
  for (let entry = 0; entry < listing.count; entry++) {
    const kind = listing.kind(entry)
    if (kind === 'directory' || (kind === 'symlink' && listing.targetLength(entry) > INLINE_TARGET_BYTES)) bytes += BLOCK_BYTES
    else bytes += Math.ceil(listing.size(entry) / BLOCK_BYTES) * BLOCK_BYTES
  }
  return bytes
}

/** Some bytes of a NAR. */
export interface NarRange {
  readonly offset: number
  readonly length: number
}

/** The blocks of files that ranges of a NAR touch: the most that writing them takes. */
export function blocksIn(layout: Layout, ranges: Iterable<NarRange>): number {
  return addUp(layout, ranges, (start, end) => Math.ceil(end / BLOCK_BYTES) - Math.floor(start / BLOCK_BYTES))
}

/** The blocks of files that lie wholly within ranges of a NAR: what holes there save. */
export function wholeBlocksIn(layout: Layout, ranges: Iterable<NarRange>): number {
  return addUp(layout, ranges, (start, end) => Math.max(0, Math.floor(end / BLOCK_BYTES) - Math.ceil(start / BLOCK_BYTES)))
}

/** Bytes of the blocks that `count` finds between two offsets of a file, over all parts of files in the ranges. */
function addUp(layout: Layout, ranges: Iterable<NarRange>, count: (start: number, end: number) => number): number {
  let blocks = 0
  for (const { offset, length } of ranges) {
    const end = offset + length
    for (let entry = layout.entryAt(offset); entry < layout.listing.count; entry++) {
      const contents = layout.contentsOffset(entry)
      if (contents >= end) break
      const [from, to] = [Math.max(offset, contents), Math.min(end, contents + layout.listing.size(entry))]
      if (from < to) blocks += count(from - contents, to - contents)
    }
  }
  return blocks * BLOCK_BYTES
}
