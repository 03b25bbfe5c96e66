import { blake3 } from '@napi-rs/blake-hash'
import { MAX_CHUNK_BYTES } from '../limits.ts'
import type { ChunkList } from './chunk-list.ts'

/** Whether a chunk is nothing but zeros. Zeros are cut at the maximum only, and no NAR ends with them, so that there is but one such chunk. */
export function isZeroChunk(chunks: ChunkList, chunk: number): boolean {
  return chunks.length(chunk) === MAX_CHUNK_BYTES && ZEROS_HASH.equals(chunks.hash(chunk))
}

const ZEROS_HASH = blake3(Buffer.alloc(MAX_CHUNK_BYTES))
