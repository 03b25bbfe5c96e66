/** What a vector's bytes are made of, so that another implementation can make the same ones. */
export type Part =
  /** The low byte of each state of xorshift32 (13, 17, 5) that follows `random`, which is not 0. */
  | { readonly random: number, readonly length: number }
  /** `text` over and over. */
  | { readonly text: string, readonly length: number }
  | { readonly zeros: true, readonly length: number }

export interface Vector {
  readonly name: string
  readonly parts: readonly Part[]
}

export const VECTORS: readonly Vector[] = [
  { name: 'one byte', parts: [{ text: 'x', length: 1 }] },
  { name: 'the minimum', parts: [{ random: 1, length: 16_384 }] },
  { name: 'the minimum and a byte', parts: [{ random: 1, length: 16_385 }] },
  { name: 'the maximum of zeros', parts: [{ zeros: true, length: 262_144 }] },
  { name: 'zeros, and a byte more than the maximum', parts: [{ zeros: true, length: 262_145 }] },
  { name: 'a text over and over', parts: [{ text: 'All work and no play makes Jack a dull boy.\n', length: 1_000_000 }] },
  { name: 'random bytes', parts: [{ random: 1, length: 4_000_000 }] },
  { name: 'random bytes, a word, and other random bytes', parts: [{ random: 1, length: 1_000_000 }, { text: 'inserted', length: 8 }, { random: 2_463_534_242, length: 1_000_000 }] },
  { name: 'zeros among random bytes', parts: [{ random: 7, length: 300_000 }, { zeros: true, length: 1_000_000 }, { random: 9, length: 300_000 }] },
]

export function bytesOf(parts: readonly Part[]): Buffer {
  return Buffer.concat(parts.map(part => {
    if ('text' in part) return Buffer.alloc(part.length, part.text)
    return 'random' in part ? randomOf(part.random, part.length) : Buffer.alloc(part.length)
  }))
}

/** `length` bytes that look random, always the same for a seed. */
export function randomOf(seed: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed | 0
  for (let at = 0; at < length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[at] = state
  }
  return bytes
}
