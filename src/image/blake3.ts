import { blake3, Blake3Hasher } from '@napi-rs/blake-hash'

/** An incremental BLAKE3 with a 32 byte digest. */
export class Blake3 {
  readonly #hasher = new Blake3Hasher()

  update(bytes: Uint8Array): this {
    this.#hasher.update(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
    return this
  }

  /** The digest of what was given so far, in lower case hex. */
  hex(): string {
    return this.#hasher.digest('hex')
  }
}

/** The 32 byte digest of bytes that are all there. */
export function blake3Of(bytes: Uint8Array): Buffer {
  return blake3(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
}
