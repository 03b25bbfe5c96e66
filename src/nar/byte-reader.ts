import { NarvikError } from '../errors.ts'
import { paddingOf } from './framing.ts'

/**
 * Takes a stream of buffers apart into NAR strings. It holds one buffer of the source, and where a string lies across two, that string.
 */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>
  #buffer: Buffer = Buffer.alloc(0)
  #at = 0
  /** Offset in the stream of the first byte of `#buffer`. */
  #base = 0

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Offset in the stream of the next byte. */
  get offset(): number {
    return this.#base + this.#at
  }

  /**
   * The bytes of the next string, of at most `maxLength` bytes; `what` names it for a message. A view that is good until the next call.
   */
  async string(maxLength: number, what: string): Promise<Buffer> {
    if (this.#left < 8) await this.#gather(8, what)
    const length = this.#length(maxLength, what)
    const framed = length + paddingOf(length)
    if (this.#left < framed) await this.#gather(framed, what)
    const bytes = this.#buffer.subarray(this.#at, this.#at + length)
    this.#at += length
    this.#padding(length)
    return bytes
  }

  /** The length that stands before the contents of a file. */
  async length(max: number, what: string): Promise<number> {
    if (this.#left < 8) await this.#gather(8, what)
    return this.#length(max, what)
  }

  /** The next 1 to `max` bytes, as many as are at hand: a view that is good until the next call. */
  async some(max: number, what: string): Promise<Buffer> {
    if (this.#left === 0) await this.#gather(1, what)
    const bytes = this.#buffer.subarray(this.#at, this.#at + max)
    this.#at += bytes.length
    return bytes
  }

  async padding(length: number): Promise<void> {
    const padding = paddingOf(length)
    if (this.#left < padding) await this.#gather(padding, 'padding')
    this.#padding(length)
  }

  /** @throws NarvikError `invalid-nar` unless the stream ends here. */
  async end(): Promise<void> {
    if (this.#left === 0 && !await this.#next()) return
    throw invalidNar(this.offset, 'found bytes after the end of the NAR, needed none')
  }

  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    await this.#source.return?.()
  }

  get #left(): number {
    return this.#buffer.length - this.#at
  }

  #length(max: number, what: string): number {
    const length = this.#buffer.readBigUInt64LE(this.#at)
    if (length > BigInt(max)) throw invalidNar(this.offset, `found ${what} of ${String(length)} bytes, needed at most ${max}`)
    this.#at += 8
    return Number(length)
  }

  #padding(length: number): void {
    for (let left = paddingOf(length); left > 0; left--) {
      if (this.#buffer[this.#at] !== 0) throw invalidNar(this.offset, `found padding byte ${String(this.#buffer[this.#at])}, needed 0`)
      this.#at++
    }
  }

  /** Makes `needed` bytes lie together. */
  async #gather(needed: number, what: string): Promise<void> {
    const start = this.offset
    const parts = this.#left === 0 ? [] : [this.#buffer.subarray(this.#at)]
    let length = this.#left
    while (length < needed) {
      if (!await this.#next()) throw invalidNar(start + length, `found the end of the stream, needed ${what}`)
      parts.push(this.#buffer)
      length += this.#buffer.length
    }
    if (parts.length > 1) this.#buffer = Buffer.concat(parts)
    this.#at = 0
    this.#base = start
  }

  async #next(): Promise<boolean> {
    for (;;) {
      const next = await this.#source.next()
      if (next.done === true) return false
      this.#base += this.#buffer.length
      this.#buffer = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength)
      this.#at = 0
      if (this.#buffer.length > 0) return true
    }
  }
}

export function invalidNar(offset: number, problem: string): NarvikError {
  return new NarvikError('invalid-nar', `Cannot read the NAR: at byte ${offset}, ${problem}`)
}
