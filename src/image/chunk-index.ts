import type { ChunkList } from './chunk-list.ts'

/** Chunks of a list that are wanted, to be found by their hash: a hash table in two columns, 8 to 12 bytes for each chunk of the list. */
export class ChunkIndex {
  readonly #chunks: ChunkList
  /** The first chunk of each bucket, and the next one of the same bucket, each plus 1; 0: none. */
  readonly #first: Uint32Array
  readonly #next: Uint32Array
  #size = 0

  constructor(chunks: ChunkList, isWanted: (chunk: number) => boolean) {
    this.#chunks = chunks
    this.#first = new Uint32Array(2 ** Math.ceil(Math.log2(chunks.count + 1)))
    this.#next = new Uint32Array(chunks.count)
    for (let chunk = 0; chunk < chunks.count; chunk++) if (isWanted(chunk)) this.add(chunk)
  }

  /** How many chunks are wanted still. */
  get size(): number {
    return this.#size
  }

  add(chunk: number): void {
    const bucket = this.#bucket(this.#chunks.hash(chunk))
    this.#next[chunk] = this.#first[bucket] ?? 0
    this.#first[bucket] = chunk + 1
    this.#size++
  }

  /** Takes out every chunk that has the hash. */
  take(hash: Uint8Array): number[] {
    const bucket = this.#bucket(hash)
    const found: number[] = []
    let before = 0
    for (let at = this.#first[bucket] ?? 0; at > 0; at = this.#next[at - 1] ?? 0) {
      if (Buffer.compare(this.#chunks.hash(at - 1), hash) !== 0) {
        before = at
        continue
      }
      found.push(at - 1)
      const next = this.#next[at - 1] ?? 0
      if (before === 0) this.#first[bucket] = next
      else this.#next[before - 1] = next
    }
    this.#size -= found.length
    return found
  }

  /** A hash is as good as random in each of its bits. */
  #bucket(hash: Uint8Array): number {
    return ((hash[0] ?? 0) | (hash[1] ?? 0) << 8 | (hash[2] ?? 0) << 16 | (hash[3] ?? 0) << 24) & (this.#first.length - 1)
  }
}
