import { blake3 } from '@napi-rs/blake-hash'

/*
 * FastCDC as the paper has it, a byte at a time and with numbers of any size; only the parameters are Narvik's. Slow, and
 * nothing of it is shared with what it is compared with.
 */

const MIN = 16n * 1024n
const NORMAL = 52n * 1024n
const MAX = 256n * 1024n
/** The highest 18 and 14 of 32 bits. */
const STRICT = 0xffffc000n
const LOOSE = 0xfffc0000n

export const referenceGear = Array.from({ length: 256 }, (_, byte) => {
  const digest = blake3(Buffer.from(`Narvik gear ${byte}`, 'ascii'))
  return BigInt(digest[0] ?? 0) + 256n * (BigInt(digest[1] ?? 0) + 256n * (BigInt(digest[2] ?? 0) + 256n * BigInt(digest[3] ?? 0)))
})

/** The lengths of the chunks of `bytes`. */
export function referenceLengths(bytes: Uint8Array): number[] {
  const lengths: number[] = []
  for (let start = 0; start < bytes.length;) {
    const length = cutOf(bytes.subarray(start))
    lengths.push(length)
    start += length
  }
  return lengths
}

function cutOf(rest: Uint8Array): number {
  let hash = 0n
  for (let at = MIN; at < MAX && at < BigInt(rest.length); at++) {
    hash = (hash * 2n + (referenceGear[rest[Number(at)] ?? 0] ?? 0n)) % 2n ** 32n
    if ((hash & (at < NORMAL ? STRICT : LOOSE)) === 0n) return Number(at) + 1
  }
  return Math.min(rest.length, Number(MAX))
}
