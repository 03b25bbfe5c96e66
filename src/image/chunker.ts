import { blake3, Blake3Hasher } from '@napi-rs/blake-hash'
import { MAX_CHUNKS } from '../limits.ts'
import { ChunkList, ChunkListBuilder } from './chunk-list.ts'
import { CutFinder } from './fastcdc.ts'

/** Makes the chunk list of a NAR from its bytes, which come in order and in pieces of any size. */
export class Chunker {
  readonly #cuts = new CutFinder()
  readonly #most: number
  /** Undefined where there are too many chunks: they are not listed. */
  #list: ChunkListBuilder | undefined
  /** What of the chunk that has begun came with earlier pieces. */
  #begun: Blake3Hasher | undefined
  #begunLength = 0

  /** `narSize` is a guess, so that memory is taken once; `most`: chunks that are listed at most, for tests. */
  constructor(narSize: number, { most = MAX_CHUNKS }: { most?: number } = {}) {
    this.#most = most
    this.#list = new ChunkListBuilder(Math.min(most, Math.ceil(narSize / EXPECTED_BYTES)))
  }

  update(bytes: Buffer): void {
    if (this.#list === undefined) return
    let from = 0
    for (let cut = this.#cuts.next(bytes, from); cut > 0; cut = this.#cuts.next(bytes, from)) {
      this.#end(bytes.subarray(from, cut))
      from = cut
      if (from === bytes.length) return
    }
    this.#begun ??= new Blake3Hasher()
    this.#begun.update(bytes.subarray(from))
    this.#begunLength += bytes.length - from
  }

  /** @throws ChunkListProblem where there was no byte. */
  finish(): ChunkList {
    if (this.#list !== undefined && this.#begunLength > 0) this.#end(NOTHING)
    return this.#list === undefined ? ChunkList.none() : this.#list.build()
  }

  #end(rest: Buffer): void {
    const hash = this.#begun === undefined ? blake3(rest) : this.#begun.update(rest).digestBuffer()
    if (this.#list?.count === this.#most) this.#list = undefined
    this.#list?.add(this.#begunLength + rest.length, hash)
    this.#begun = undefined
    this.#begunLength = 0
  }
}

/** Below the mean, so that the list seldom has to grow. */
const EXPECTED_BYTES = 56 * 1024
const NOTHING = Buffer.alloc(0)
