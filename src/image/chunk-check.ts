import { blake3Of } from './blake3.ts'
import type { ChunkList } from './chunk-list.ts'
import type { ChunkRun } from './chunk-set.ts'

/** Bytes of a run of chunks. */
export function runBytes(chunks: Pick<ChunkList, 'offset'>, { first, count }: ChunkRun): number {
  return chunks.offset(first + count) - chunks.offset(first)
}

/** Whether the bytes are those of the chunk. */
export function isChunk(chunks: ChunkList, chunk: number, bytes: Uint8Array): boolean {
  return bytes.length === chunks.length(chunk) && blake3Of(bytes).equals(chunks.hash(chunk))
}

/** The first chunk of a run whose bytes are not its own; undefined where all are right. */
export function findWrongChunk(chunks: ChunkList, { first, count }: ChunkRun, bytes: Uint8Array): number | undefined {
  const start = chunks.offset(first)
  for (let chunk = first; chunk < first + count; chunk++) {
    if (!isChunk(chunks, chunk, bytes.subarray(chunks.offset(chunk) - start, chunks.offset(chunk + 1) - start))) return chunk
  }
  return undefined
}
