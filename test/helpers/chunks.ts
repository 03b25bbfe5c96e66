import { blake3 } from '@napi-rs/blake-hash'
import { type ChunkList, ChunkListBuilder } from '../../src/image/chunk-list.ts'
import { referenceLengths } from '../vectors/fastcdc/reference.ts'

/** The chunks that a NAR must have, in the plainest way. */
export function chunksOfNar(nar: Buffer): ChunkList {
  const builder = new ChunkListBuilder()
  let at = 0
  for (const length of referenceLengths(nar)) {
    builder.add(length, blake3(nar.subarray(at, at + length)))
    at += length
  }
  return builder.build()
}
