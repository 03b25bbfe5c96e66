/** Buffers of one size that are used again: such as come and go would lie about until the next collection of all garbage. */
export class Buffers {
  readonly #bytes: number
  readonly #kept: number
  readonly #free: Buffer[] = []

  /** `kept`: how many wait at most for being used again. */
  constructor({ bytes, kept }: { readonly bytes: number, readonly kept: number }) {
    this.#bytes = bytes
    this.#kept = kept
  }

  /** One with whatever bytes it had before. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes)
  }

  /** To be called once for each that was taken, when nobody has it any more; one that is not given back is garbage. */
  giveBack(buffer: Buffer): void {
    if (this.#free.length < this.#kept) this.#free.push(buffer)
  }
}
