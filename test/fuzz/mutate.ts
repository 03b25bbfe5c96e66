/** Numbers that are made from a seed: the same ones each time. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1
  }

  /** A whole number from 0 to below `limit`. */
  below(limit: number): number {
    // Marsaglia's xorshift.
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return limit <= 0 ? 0 : (this.#state >>> 0) % limit
  }

  of<Item>(items: readonly Item[]): Item | undefined {
    return items[this.below(items.length)]
  }
}

export interface Material {
  readonly words: readonly Uint8Array[]
  /** Other inputs, of which parts are taken. */
  readonly others: readonly Uint8Array[]
  /** Bytes that an input may have. */
  readonly most: number
}

const EDGES = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff]

/** Another input that is like this one. */
export function mutate(bytes: Uint8Array, dice: Dice, material: Material): Uint8Array {
  let result: Buffer = Buffer.from(bytes)
  for (let times = 1 + dice.below(4) * dice.below(3); times > 0; times--) result = change(result, dice, material)
  return Uint8Array.from(result.subarray(0, material.most))
}

function change(bytes: Buffer, dice: Dice, { words, others }: Material): Buffer {
  const at = dice.below(bytes.length + 1)
  const length = 1 + dice.below(1 << dice.below(7))
  switch (dice.below(11)) {
    case 0: return flip(bytes, at, 1 << dice.below(8))
    case 1: return flip(bytes, at, 1 + dice.below(255))
    case 2: return splice(bytes, at, 0, Buffer.from(Array.from({ length: Math.min(length, 8) }, () => dice.below(256))))
    case 3: return splice(bytes, at, length, Buffer.alloc(0))
    case 4: return splice(bytes, at, 0, bytes.subarray(dice.below(bytes.length), dice.below(bytes.length) + length))
    case 5: return splice(bytes, at, 0, words[dice.below(words.length)] ?? Buffer.alloc(0))
    case 6: return over(bytes, at, words[dice.below(words.length)] ?? Buffer.alloc(0))
    case 7: return over(bytes, at, edge(dice))
    case 8: return digits(bytes, at, dice)
    case 9: {
      const other = Buffer.from(dice.of(others) ?? bytes)
      const from = dice.below(other.length)
      return splice(bytes, at, dice.below(length), other.subarray(from, from + length))
    }
    default: {
      const other = Buffer.from(dice.of(others) ?? bytes)
      return Buffer.concat([bytes.subarray(0, at), other.subarray(dice.below(other.length))])
    }
  }
}

function splice(bytes: Buffer, at: number, removed: number, added: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + removed)])
}

function over(bytes: Buffer, at: number, added: Uint8Array): Buffer {
  return splice(bytes, at, added.length, added)
}

function flip(bytes: Buffer, at: number, bits: number): Buffer {
  if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ bits
  return bytes
}

/** A number at the edge of what some bytes hold, in one of the ways in which numbers are written. */
function edge(dice: Dice): Buffer {
  const value = (dice.of(EDGES) ?? 0) + dice.below(3)
  const bytes = Buffer.alloc(8)
  if (dice.below(2) === 0) bytes.writeBigUInt64LE(BigInt(value))
  else bytes.writeBigUInt64BE(BigInt(value))
  return dice.below(2) === 0 ? bytes : bytes.subarray(0, 1 << dice.below(3))
}

/** Another number in the place of one that is written in digits. */
function digits(bytes: Buffer, at: number, dice: Dice): Buffer {
  const found = /\d+/.exec(bytes.subarray(at).toString('latin1'))
  if (found === null) return bytes
  const value = dice.of(['0', '-1', '1.5', '1e999', '9007199254740993', '4294967296', String(dice.below(100_000)), `${found[0]}0`, 'null']) ?? '0'
  return splice(bytes, at + found.index, found[0].length, Buffer.from(value))
}
