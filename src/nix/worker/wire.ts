import { NarvikError } from '../../errors.ts'
import { MAX_NIX_WIRE_LIST, MAX_NIX_WIRE_STRING_BYTES } from '../../limits.ts'

/**
 * The values of Nix's worker protocol: numbers are 8 bytes, little-endian; a string is its length, its bytes, and zeros
 * up to a multiple of 8; a list is its length and its items (doc/manual/source/protocols in Nix's source).
 */
export class WireWriter {
  readonly #parts: Buffer[] = []

  u64(value: number): this {
    this.#parts.push(encodeU64(value))
    return this
  }

  bool(value: boolean): this {
    return this.u64(value ? 1 : 0)
  }

  text(value: string): this {
    const bytes = Buffer.from(value, 'utf8')
    this.u64(bytes.length)
    this.#parts.push(bytes, Buffer.alloc(paddingOf(bytes.length)))
    return this
  }

  texts(values: readonly string[]): this {
    this.u64(values.length)
    for (const value of values) this.text(value)
    return this
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

export function encodeU64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** Takes values off what a store's daemon sends. Sizes are checked before anything is allocated; every failure is `nix-failed`. */
export class WireReader {
  readonly #source: AsyncIterator<Uint8Array>
  #buffer: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** A number that JavaScript counts exactly. */
  async u64(): Promise<number> {
    const value = (await this.#take(8)).readBigUInt64LE()
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
    throw malformed(`the number ${value}`, `one of at most ${Number.MAX_SAFE_INTEGER}`)
  }

  async bool(): Promise<boolean> {
    return await this.u64() !== 0
  }

  async text(): Promise<string> {
    const length = await this.u64()
    if (length > MAX_NIX_WIRE_STRING_BYTES) throw malformed(`a string of ${length} bytes`, `at most ${MAX_NIX_WIRE_STRING_BYTES}`)
    const bytes = await this.#take(length + paddingOf(length))
    if (bytes.subarray(length).some(byte => byte !== 0)) throw malformed('padding that is not zero', 'zeros')
    return bytes.toString('utf8', 0, length)
  }

  async texts(): Promise<string[]> {
    return this.list(() => this.text())
  }

  async list<T>(item: () => Promise<T>): Promise<T[]> {
    const length = await this.u64()
    if (length > MAX_NIX_WIRE_LIST) throw malformed(`a list of ${length} items`, `at most ${MAX_NIX_WIRE_LIST}`)
    const items: T[] = []
    for (let index = 0; index < length; index++) items.push(await item())
    return items
  }

  async #take(length: number): Promise<Buffer> {
    const parts: Buffer[] = [this.#buffer]
    let have = this.#buffer.length
    while (have < length) {
      const next = await this.#source.next()
      if (next.done === true) throw new NarvikError('nix-failed', 'Cannot go on with the Nix store: found the end of what its daemon sends, needed an answer')
      parts.push(Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength))
      have += next.value.byteLength
    }
    const all = parts.length === 1 ? this.#buffer : Buffer.concat(parts)
    this.#buffer = all.subarray(length)
    return all.subarray(0, length)
  }
}

export function malformed(found: string, needed: string): NarvikError {
  return new NarvikError('nix-failed', `Cannot read what the Nix daemon sends: found ${found}, needed ${needed}`)
}

function paddingOf(length: number): number {
  return (8 - length % 8) % 8
}
