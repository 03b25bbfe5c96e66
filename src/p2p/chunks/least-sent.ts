import { type ChunkRun, chunksOf, toRuns } from '../../image/chunk-set.ts'

/** Bytes of a chunk. */
export type LengthOf = (chunk: number) => number

/**
 * How often each chunk of an image was given away by this host. Where a peer leaves it the choice, it gets those that were given
 * least: so a host that alone has an image sends each chunk once before it sends any twice, whoever asks.
 */
export class LeastSent {
  readonly #times: Uint8Array
  readonly #lengthOf: LengthOf

  constructor(count: number, lengthOf: LengthOf) {
    this.#times = new Uint8Array(count)
    this.#lengthOf = lengthOf
  }

  /** All chunks of the runs, or those of about `bytes` that were given least; at least one. They count as given from now on. */
  give(runs: readonly ChunkRun[], bytes = Infinity): ChunkRun[] {
    const chunks = [...chunksOf(runs)]
    const given = bytes === Infinity ? chunks : this.#choose(chunks, bytes)
    for (const chunk of given) this.#count(chunk, 1)
    return toRuns(given)
  }

  /** They were not given after all. */
  takeBack(chunks: Iterable<number>): void {
    for (const chunk of chunks) this.#count(chunk, -1)
  }

  #choose(chunks: readonly number[], bytes: number): number[] {
    const chosen: number[] = []
    let left = bytes
    for (const chunk of [...chunks].sort((a, b) => (this.#times[a] ?? 0) - (this.#times[b] ?? 0))) {
      if (chosen.length > 0 && this.#lengthOf(chunk) > left) break
      chosen.push(chunk)
      left -= this.#lengthOf(chunk)
    }
    return chosen.sort((a, b) => a - b)
  }

  #count(chunk: number, change: 1 | -1): void {
    this.#times[chunk] = Math.min(Math.max((this.#times[chunk] ?? 0) + change, 0), 255)
  }
}
