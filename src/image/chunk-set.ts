/** Chunks that follow each other in the NAR. */
export interface ChunkRun {
  /** Number of the first one. */
  readonly first: number
  readonly count: number
}

/**
 * A set of chunks of one image: a bit for each, and above each word of bits a bit that says whether any is set, so that a
 * few chunks among millions are found without reading all.
 */
export class ChunkSet {
  /** Chunks of the image. */
  readonly capacity: number
  readonly #words: Uint32Array
  readonly #used: Uint32Array
  #size = 0

  constructor(capacity: number) {
    this.capacity = capacity
    this.#words = new Uint32Array(Math.ceil(capacity / 32))
    this.#used = new Uint32Array(Math.ceil(this.#words.length / 32))
  }

  /** The set of all chunks of an image. */
  static full(capacity: number): ChunkSet {
    const set = new ChunkSet(capacity)
    set.#words.fill(ALL)
    const over = set.#words.length * 32 - capacity
    if (over > 0) set.#words[set.#words.length - 1] = ALL >>> over
    for (let word = 0; word < set.#words.length; word++) set.#mark(word)
    set.#size = capacity
    return set
  }

  /** Undefined where the bytes are not those that `toBytes` gives for a set of this capacity. */
  static fromBytes(bytes: Uint8Array, capacity: number): ChunkSet | undefined {
    if (bytes.length !== Math.ceil(capacity / 8)) return undefined
    const set = new ChunkSet(capacity)
    for (const [at, byte] of bytes.entries()) {
      for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0 && 8 * at + bit < capacity) set.add(8 * at + bit)
    }
    return set
  }

  /** A bit for each chunk, the lowest of a byte first. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(Math.ceil(this.capacity / 8))
    for (let at = 0; at < bytes.length; at++) bytes[at] = (this.#word(at >>> 2) >>> (8 * (at & 3))) & 0xff
    return bytes
  }

  /** Chunks in the set. */
  get size(): number {
    return this.#size
  }

  has(chunk: number): boolean {
    return (this.#word(chunk >>> 5) & (1 << (chunk & 31))) !== 0
  }

  /** Chunks of the set from `start` to before `end`. */
  countBetween(start: number, end: number): number {
    let count = 0
    for (let at = start; at < end;) {
      const next = Math.min((at | 31) + 1, end)
      const mask = (ALL << (at & 31)) & (ALL >>> (31 - ((next - 1) & 31)))
      count += bitsOf(this.#word(at >>> 5) & mask)
      at = next
    }
    return count
  }

  /** Whether it was not in the set before. */
  add(chunk: number): boolean {
    if (this.has(chunk)) return false
    const word = chunk >>> 5
    this.#words[word] = this.#word(word) | (1 << (chunk & 31))
    this.#mark(word)
    this.#size += 1
    return true
  }

  addRun({ first, count }: ChunkRun): void {
    for (let chunk = first; chunk < first + count; chunk++) this.add(chunk)
  }

  deleteRun({ first, count }: ChunkRun): void {
    for (let chunk = first; chunk < first + count; chunk++) this.delete(chunk)
  }

  /** Whether it was in the set before. */
  delete(chunk: number): boolean {
    if (!this.has(chunk)) return false
    const word = chunk >>> 5
    this.#words[word] = this.#word(word) & ~(1 << (chunk & 31))
    if (this.#word(word) === 0) this.#used[word >>> 5] = (this.#used[word >>> 5] ?? 0) & ~(1 << (word & 31))
    this.#size -= 1
    return true
  }

  /** The chunks in ascending order, joined to runs of at most `max`. The set must not change meanwhile. */
  * runs(max = Infinity): Generator<ChunkRun> {
    let [first, count] = [0, 0]
    for (let chunk = this.next(0); chunk !== undefined; chunk = this.next(chunk + 1)) {
      if (count > 0 && chunk === first + count && count < max) {
        count += 1
        continue
      }
      if (count > 0) yield { first, count }
      first = chunk
      count = 1
    }
    if (count > 0) yield { first, count }
  }

  /** The chunks from `start` to the last one and then from the first one on, as far as they are in `other` too. Chunks behind the one that is yielded may be taken out. */
  * from(start: number, other: ChunkSet = this): Generator<number> {
    for (let chunk = this.next(start, other); chunk !== undefined; chunk = this.next(chunk + 1, other)) yield chunk
    for (let chunk = this.next(0, other); chunk !== undefined && chunk < start; chunk = this.next(chunk + 1, other)) yield chunk
  }

  /** The first chunk from `start` on that is in both sets; undefined where there is none. */
  next(start: number, other: ChunkSet = this): number | undefined {
    for (let word = start >>> 5; word < this.#words.length; word++) {
      if ((word & 31) === 0) word = this.#nextUsed(word, other)
      let bits = this.#word(word) & other.#word(word)
      if (word === start >>> 5) bits &= ALL << (start & 31)
      if (bits !== 0) return (word << 5) + 31 - Math.clz32(bits & -bits)
    }
    return undefined
  }

  /** The first word from `word` on, a multiple of 32, in whose group both sets have any. */
  #nextUsed(word: number, other: ChunkSet): number {
    let group = word >>> 5
    while (group < this.#used.length && ((this.#used[group] ?? 0) & (other.#used[group] ?? 0)) === 0) group++
    return group << 5
  }

  #word(word: number): number {
    return this.#words[word] ?? 0
  }

  #mark(word: number): void {
    this.#used[word >>> 5] = (this.#used[word >>> 5] ?? 0) | (1 << (word & 31))
  }
}

/** Joins ascending numbers of chunks to runs. */
export function toRuns(chunks: Iterable<number>): ChunkRun[] {
  const runs: { first: number, count: number }[] = []
  for (const chunk of chunks) {
    const last = runs.at(-1)
    if (last !== undefined && chunk === last.first + last.count) last.count += 1
    else runs.push({ first: chunk, count: 1 })
  }
  return runs
}

/** The chunks of runs, in their order. */
export function* chunksOf(runs: Iterable<ChunkRun>): Generator<number> {
  for (const { first, count } of runs) for (let chunk = first; chunk < first + count; chunk++) yield chunk
}

const ALL = 0xffffffff

/** Bits that are set among 32. */
function bitsOf(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
