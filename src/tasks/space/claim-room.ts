import { runBytes } from '../../image/chunk-check.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import type { ChunkRun } from '../../image/chunk-set.ts'
import { isZeroChunk } from '../../image/zero-chunk.ts'
import { blocksIn, diskBytesOf, type NarRange, wholeBlocksIn } from '../../nar/disk-usage.ts'
import type { Layout } from '../../nar/layout.ts'
import type { TaskContext } from '../context.ts'
import type { Job } from '../jobs.ts'

/** What an image is to be. */
export interface Blueprint {
  readonly layout: Layout
  readonly chunks: ChunkList
}

/**
 * Until the job ends, nobody else gets the room that the image will take: that of its files without the runs of zeros, which become holes. Where some of it is
 * in quarantine already, `isMissing` says of which chunks the rest is: no more is claimed than what is there and these can come to.
 */
export async function claimRoom({ space }: Pick<TaskContext, 'space'>, { narHash, signal }: Job<unknown>, { layout, chunks }: Blueprint, isMissing?: (chunk: number) => boolean): Promise<void> {
  const zeros = rangesOf(chunks, chunk => isZeroChunk(chunks, chunk))
  const bytes = diskBytesOf(layout.listing) - wholeBlocksIn(layout, zeros)
  const isPartial = isMissing !== undefined && !chunks.isNone
  const missing = isPartial ? { missing: blocksIn(layout, rangesOf(chunks, chunk => isMissing(chunk) && !isZeroChunk(chunks, chunk))) } : {}
  await space.claim(narHash.toNix32(), bytes, { signal, ...missing })
}

/** Where the chunks lie that `isMeant`, those that adjoin in one. */
function* rangesOf(chunks: ChunkList, isMeant: (chunk: number) => boolean): Generator<NarRange> {
  for (let first = 0; first < chunks.count; first++) {
    let count = 0
    while (first + count < chunks.count && isMeant(first + count)) count++
    const run: ChunkRun = { first, count }
    if (count > 0) yield { offset: chunks.offset(first), length: runBytes(chunks, run) }
    first += count
  }
}
