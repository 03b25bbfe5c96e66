import { createCipheriv, createHash } from 'node:crypto'

/** Random choices and bytes that a number replays. */
export class Random {
  readonly #stream: ReturnType<typeof createCipheriv>

  constructor(number: number, purpose: string) {
    this.#stream = createCipheriv('aes-128-ctr', createHash('sha256').update(`${number} ${purpose}`).digest().subarray(0, 16), Buffer.alloc(16))
  }

  bytes(count: number): Buffer {
    return this.#stream.update(Buffer.alloc(count))
  }

  /** At least 0, below 1. */
  fraction(): number {
    return this.bytes(4).readUInt32LE() / 2 ** 32
  }

  /** A whole number from `first` to `last`. */
  between(first: number, last: number): number {
    return first + Math.floor(this.fraction() * (last - first + 1))
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.between(0, choices.length - 1)] ?? choices[0]
  }
}
