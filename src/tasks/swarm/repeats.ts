import { isChunk } from '../../image/chunk-check.ts'
import { ChunkIndex } from '../../image/chunk-index.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../../image/chunk-set.ts'

/** Chunks of one image that have the same bytes: one of them is received, the others are copies of it. */
export class Repeats {
  readonly #chunks: ChunkList
  /** The other places of each missing chunk that has any. */
  readonly #places = new Map<number, readonly number[]>()
  /** Missing chunks that nobody need be asked for. */
  readonly copies: ChunkSet

  /** Of the missing chunks, the first of those that are alike is the one to ask for. */
  constructor(chunks: ChunkList, isMissing: (chunk: number) => boolean) {
    this.#chunks = chunks
    this.copies = new ChunkSet(chunks.count)
    const index = new ChunkIndex(chunks, isMissing)
    for (let chunk = 0; chunk < chunks.count && index.size > 0; chunk++) {
      if (!isMissing(chunk) || this.copies.has(chunk)) continue
      const others = index.take(chunks.hash(chunk)).filter(other => other !== chunk)
      if (others.length === 0) continue
      this.#places.set(chunk, others.sort((a, b) => a - b))
      for (const copy of others) this.copies.add(copy)
    }
  }

  /** Where else the bytes of a run go: the chunks that are like one of it, each with its bytes. */
  * of(run: ChunkRun, bytes: Uint8Array): Generator<readonly [number, Uint8Array]> {
    if (this.#places.size === 0) return
    const start = this.#chunks.offset(run.first)
    for (const chunk of chunksOf([run])) {
      for (const copy of this.#places.get(chunk) ?? []) yield [copy, bytes.subarray(this.#chunks.offset(chunk) - start, this.#chunks.offset(chunk + 1) - start)]
    }
  }
}

export interface OwnChunks {
  readonly chunks: ChunkList
  readonly isMissing: (chunk: number) => boolean
  /** The bytes of a chunk on disk; undefined where they can't be read. */
  readonly read: (chunk: number) => Promise<Uint8Array | undefined>
  /** The bytes of a chunk, which are right, are to be written. */
  readonly write: (chunk: number, bytes: Uint8Array) => Promise<void>
}

/** Copies within an image what it has in one place and lacks in another, as where a kill fell between the two. */
export async function copyOwn({ chunks, isMissing, read, write }: OwnChunks): Promise<void> {
  const wanted = new ChunkIndex(chunks, isMissing)
  for (let chunk = 0; chunk < chunks.count && wanted.size > 0; chunk++) {
    if (isMissing(chunk)) continue
    const places = wanted.take(chunks.hash(chunk)).filter(isMissing)
    if (places.length === 0) continue
    const bytes = await read(chunk)
    if (bytes !== undefined && isChunk(chunks, chunk, bytes)) for (const place of places) await write(place, bytes)
    // What is damaged here is found out in the end; it may be whole in yet another place.
    else for (const place of places) wanted.add(place)
  }
}
