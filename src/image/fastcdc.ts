import { blake3 } from '@napi-rs/blake-hash'
import { MAX_CHUNK_BYTES, MIN_CHUNK_BYTES } from '../limits.ts'

/**
 * Finds where the chunks of a stream end, so that what is the same in two streams is mostly the same chunks, wherever it lies: FastCDC of
 * Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data Deduplication", USENIX ATC 2016, with
 * normalised chunking of level 2. test/vectors/fastcdc fixes what it finds.
 *
 * The gear hash is 32 bits wide, which is what JavaScript computes fast: a byte's share is shifted left once for each later byte and is gone
 * after 32. So bit n depends on the last n + 1 bytes only, and the masks ask for the highest bits: each of those sees 15 bytes or more, all
 * of them together 32. The paper spreads its mask over a hash of 64 bits for the same reason.
 */
export class CutFinder {
  /** Bytes of the chunk that has begun. */
  #length = 0
  /** The gear hash of what of the chunk lies after its first MIN_CHUNK_BYTES. */
  #hash = 0

  /**
   * Takes the stream's next bytes, those of `bytes` from `from` on, up to the end of the chunk that has begun: where that lies in `bytes`, or 0
   * where the chunk goes on after them. The next call goes on from there.
   */
  next(bytes: Uint8Array, from: number): number {
    // What lies below the minimum can't be a cut, and isn't looked at.
    const start = from - this.#length
    let at = Math.max(from, start + MIN_CHUNK_BYTES)
    for (const [limit, mask] of [[start + NORMAL_BYTES, STRICT_MASK], [start + MAX_CHUNK_BYTES, LOOSE_MASK]] as const) {
      const end = Math.min(limit, bytes.length)
      const cut = this.#scan(bytes, at, end, mask)
      if (cut > 0) return this.#cutAt(cut)
      at = Math.max(at, end)
    }
    if (start + MAX_CHUNK_BYTES <= bytes.length) return this.#cutAt(start + MAX_CHUNK_BYTES)
    this.#length = bytes.length - start
    return 0
  }

  #cutAt(cut: number): number {
    this.#length = 0
    this.#hash = 0
    return cut
  }

  /** The offset after the first byte between `at` and `end` at which the hash has no bit of the mask; 0 where there is none. */
  #scan(bytes: Uint8Array, at: number, end: number, mask: number): number {
    let hash = this.#hash
    let i = at
    // Eight bytes a turn take a third less time than one.
    for (const last = end - 7; i < last; i += 8) {
      hash = (hash << 1) + (GEAR[bytes[i] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 1
      hash = (hash << 1) + (GEAR[bytes[i + 1] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 2
      hash = (hash << 1) + (GEAR[bytes[i + 2] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 3
      hash = (hash << 1) + (GEAR[bytes[i + 3] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 4
      hash = (hash << 1) + (GEAR[bytes[i + 4] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 5
      hash = (hash << 1) + (GEAR[bytes[i + 5] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 6
      hash = (hash << 1) + (GEAR[bytes[i + 6] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 7
      hash = (hash << 1) + (GEAR[bytes[i + 7] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 8
    }
    for (; i < end; i++) {
      hash = (hash << 1) + (GEAR[bytes[i] ?? 0] ?? 0) | 0
      if ((hash & mask) === 0) return i + 1
    }
    this.#hash = hash
    return 0
  }
}

/**
 * Bytes of a chunk from which on a cut is sixteen times as likely. With 18 and 14 bits the mean over random data is then
 * 16 + 256 (1 - p) + 16 p = 64 KiB, p = e^(-36/256) being the chance to get here; at 64 KiB it would be 73.
 */
export const NORMAL_BYTES = 52 * 1024
/** Two bits more, and two fewer, than the sixteen of one cut in 64 KiB: that is normalisation level 2. */
const STRICT_MASK = highestBits(18)
const LOOSE_MASK = highestBits(14)

function highestBits(count: number): number {
  return -1 << (32 - count)
}

/** A random number for each value of a byte: the first four bytes, the lowest first, of the BLAKE3 of `Narvik gear 0` to `Narvik gear 255`. */
const GEAR = Int32Array.from({ length: 256 }, (_, byte) => blake3(`Narvik gear ${byte}`).readInt32LE(0))

/** The gear table, for whoever compares. */
export function gearTable(): readonly number[] {
  return Array.from(GEAR, value => value >>> 0)
}
