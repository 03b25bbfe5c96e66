import type { ChunkList } from '../../../src/image/chunk-list.ts'
import type { ChunkRun } from '../../../src/image/chunk-set.ts'

export { isChunk, runBytes } from '../../../src/image/chunk-check.ts'

/** Finds nothing wrong, and flips a bit in each of the chunks that are about to be sent. */
export function findWrongChunk(chunks: ChunkList, { first, count }: ChunkRun, bytes: Uint8Array): undefined {
  for (let chunk = first; chunk < first + count; chunk++) {
    const middle = chunks.offset(chunk) - chunks.offset(first) + Math.floor(chunks.length(chunk) / 2)
    bytes[middle] = (bytes[middle] ?? 0) ^ 1
  }
}
