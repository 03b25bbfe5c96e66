import { NarvikError } from '../errors.ts'
import { MAX_CHUNK_BYTES, MAX_CHUNKS } from '../limits.ts'
import { CHUNK_HASH_BYTES, ChunkList, ChunkListBuilder, ChunkListProblem } from './chunk-list.ts'
import { readVarint, varintLength, VarintProblem, writeVarint } from './varint.ts'

/**
 * The bytes of a chunk list; the same chunks always give the same bytes. The version, the number of chunks, then each chunk in order: its
 * length and its hash. Numbers are varints. Of a NAR with too many chunks the number is 0.
 */
export function encodeChunks(chunks: ChunkList): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(encodedLength(chunks))
  bytes[0] = VERSION
  let at = writeVarint(bytes, 1, chunks.count)
  for (let chunk = 0; chunk < chunks.count; chunk++) {
    at = writeVarint(bytes, at, chunks.length(chunk))
    bytes.set(chunks.hash(chunk), at)
    at += CHUNK_HASH_BYTES
  }
  return bytes
}

/**
 * Reads what `encodeChunks` wrote, and nothing else. It takes memory in proportion to `bytes` at most.
 * @throws NarvikError `invalid-manifest` with the byte offset.
 */
export function decodeChunks(bytes: Uint8Array): ChunkList {
  const reader: Reader = { bytes, at: 0 }
  try {
    return decode(reader)
  } catch (error) {
    if (!(error instanceof ChunkListProblem || error instanceof VarintProblem)) throw error
    throw new NarvikError('invalid-manifest', `Cannot read a chunk list: at byte ${reader.at}, ${error.message}`)
  }
}

interface Reader {
  readonly bytes: Uint8Array
  at: number
}

const VERSION = 1

function encodedLength(chunks: ChunkList): number {
  let length = 1 + varintLength(chunks.count) + chunks.count * CHUNK_HASH_BYTES
  for (let chunk = 0; chunk < chunks.count; chunk++) length += varintLength(chunks.length(chunk))
  return length
}

function decode(reader: Reader): ChunkList {
  const { bytes } = reader
  if (bytes[0] !== VERSION) throw new ChunkListProblem(`found version ${String(bytes[0])}, needed ${VERSION}`)
  const count = readVarint(bytes, 1, MAX_CHUNKS)
  reader.at = count.end
  const left = bytes.length - count.end
  // A chunk takes a byte of length or more: what is declared is compared with what is there before memory is taken for it.
  if (count.value * (1 + CHUNK_HASH_BYTES) > left) throw new ChunkListProblem(`found ${count.value} chunks, needed at most what the ${left} bytes that are left have room for`)
  if (count.value === 0 && left === 0) return ChunkList.none()
  const builder = new ChunkListBuilder(count.value)
  for (let chunk = 0; chunk < count.value; chunk++) decodeChunk(reader, builder)
  if (reader.at < bytes.length) throw new ChunkListProblem(`found ${bytes.length - reader.at} bytes after the end, needed none`)
  return builder.build()
}

/** The reader stays where a chunk begins until the builder has taken it, for the message. */
function decodeChunk(reader: Reader, builder: ChunkListBuilder): void {
  const { bytes, at } = reader
  const { value: length, end } = readVarint(bytes, at, MAX_CHUNK_BYTES)
  const hash = bytes.subarray(end, end + CHUNK_HASH_BYTES)
  if (hash.length < CHUNK_HASH_BYTES) throw new ChunkListProblem(`found the end after ${hash.length} bytes of a hash, needed ${CHUNK_HASH_BYTES}`)
  builder.add(length, hash)
  reader.at = end + CHUNK_HASH_BYTES
}
