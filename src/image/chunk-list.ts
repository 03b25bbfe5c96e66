import { MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_NAR_SIZE, MIN_CHUNK_BYTES } from '../limits.ts'

/** Bytes of a chunk's hash. */
export const CHUNK_HASH_BYTES = 32

/** What a chunk list holds: 40 bytes for each chunk, so that the list of a 64 GiB image takes some 40 MB. */
export interface ChunkColumns {
  /** Where each chunk begins in the NAR, and at the end the NAR's size. One more than chunks. */
  readonly offsets: Float64Array<ArrayBuffer>
  /** The BLAKE3 of each chunk, CHUNK_HASH_BYTES each. */
  readonly hashes: Uint8Array<ArrayBuffer>
}

/** The chunks of a NAR in their order, without gaps. A chunk is asked for by its index, below `count`. */
export class ChunkList {
  readonly columns: ChunkColumns
  readonly count: number
  /** Bytes of the NAR. */
  readonly narSize: number

  /** The list of a NAR that has more chunks than a manifest may list: it has none of them. */
  static none(): ChunkList {
    return new ChunkList({ offsets: new Float64Array(1), hashes: new Uint8Array(0) })
  }

  /** Takes columns that a `ChunkListBuilder` made, for instance in another thread; they are not checked again. */
  constructor(columns: ChunkColumns) {
    this.columns = columns
    this.count = columns.offsets.length - 1
    this.narSize = columns.offsets[this.count] ?? 0
  }

  /** Whether the chunks are not listed, as there are too many: such an image goes in one stream. */
  get isNone(): boolean {
    return this.count === 0
  }

  /** Where the chunk begins in the NAR; of the index `count`, where the NAR ends. */
  offset(chunk: number): number {
    return this.columns.offsets[chunk] ?? 0
  }

  length(chunk: number): number {
    return this.offset(chunk + 1) - this.offset(chunk)
  }

  /** The BLAKE3 of the chunk, a view of CHUNK_HASH_BYTES. */
  hash(chunk: number): Uint8Array {
    return this.columns.hashes.subarray(chunk * CHUNK_HASH_BYTES, (chunk + 1) * CHUNK_HASH_BYTES)
  }

  /** The chunk that holds the byte at `narOffset`, which is below `narSize`. */
  at(narOffset: number): number {
    let low = 0
    let high = this.count - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.offset(middle) <= narOffset) low = middle
      else high = middle - 1
    }
    return low
  }
}

/** Why something is no chunk list; whoever builds one adds where it stood. The message reads `found …, needed …`. */
export class ChunkListProblem extends Error {
  override readonly name = 'ChunkListProblem'
  /** Whether it is only too much, not malformed. */
  readonly overLimit: boolean

  constructor(message: string, overLimit = false) {
    super(message)
    this.overLimit = overLimit
  }
}

/** Makes a chunk list chunk by chunk. `add` throws a ChunkListProblem on a length that no chunk may have. */
export class ChunkListBuilder {
  #offsets: Float64Array<ArrayBuffer>
  #hashes: Uint8Array<ArrayBuffer>
  #count = 0
  #narSize = 0

  /** `expected` chunks need no growing; it is only a guess, or a number that was checked. */
  constructor(expected = 64) {
    this.#offsets = new Float64Array(expected + 1)
    this.#hashes = new Uint8Array(expected * CHUNK_HASH_BYTES)
  }

  get count(): number {
    return this.#count
  }

  /** Bytes of all chunks so far. */
  get narSize(): number {
    return this.#narSize
  }

  /** Adds the next chunk; its hash is copied. Only the last one may be shorter than MIN_CHUNK_BYTES. */
  add(length: number, hash: Uint8Array): void {
    const before = this.#count === 0 ? MIN_CHUNK_BYTES : this.#narSize - (this.#offsets[this.#count - 1] ?? 0)
    if (before < MIN_CHUNK_BYTES) throw new ChunkListProblem(`found a chunk of ${before} bytes before the last one, needed at least ${MIN_CHUNK_BYTES}`)
    if (!Number.isSafeInteger(length) || length < 1 || length > MAX_CHUNK_BYTES) throw new ChunkListProblem(`found a chunk of ${length} bytes, needed 1 to ${MAX_CHUNK_BYTES}`)
    if (hash.length !== CHUNK_HASH_BYTES) throw new ChunkListProblem(`found a hash of ${hash.length} bytes, needed ${CHUNK_HASH_BYTES}`)
    if (this.#count >= MAX_CHUNKS) throw new ChunkListProblem(`found more than ${MAX_CHUNKS} chunks, needed at most that`, true)
    if (this.#narSize + length > MAX_NAR_SIZE) throw new ChunkListProblem(`found chunks of more than ${MAX_NAR_SIZE} bytes, needed at most that`, true)
    this.#reserve()
    this.#hashes.set(hash, this.#count * CHUNK_HASH_BYTES)
    this.#count++
    this.#narSize += length
    this.#offsets[this.#count] = this.#narSize
  }

  /** The list, in the memory that was taken for it: nothing may be added afterwards. @throws ChunkListProblem where there is no chunk: a NAR is never empty. */
  build(): ChunkList {
    if (this.#count === 0) throw new ChunkListProblem('found no chunk, needed at least one')
    return new ChunkList({ offsets: this.#offsets.subarray(0, this.#count + 1), hashes: this.#hashes.subarray(0, this.#count * CHUNK_HASH_BYTES) })
  }

  #reserve(): void {
    if ((this.#count + 1) * CHUNK_HASH_BYTES <= this.#hashes.length) return
    const chunks = Math.min(MAX_CHUNKS, Math.max(64, this.#count * 2))
    const offsets = new Float64Array(chunks + 1)
    offsets.set(this.#offsets)
    const hashes = new Uint8Array(chunks * CHUNK_HASH_BYTES)
    hashes.set(this.#hashes)
    this.#offsets = offsets
    this.#hashes = hashes
  }
}
