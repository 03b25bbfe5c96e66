import { NarvikError } from '../errors.ts'
import { decodeNix32, encodeNix32 } from './nix32.ts'

const BYTES = 32

/**
 * The SHA-256 of a tree's NAR serialisation: what an image is named by. Two are the same image when `equals` says so;
 * their text forms are for the edges only.
 */
export class NarHash {
  readonly bytes: Uint8Array

  private constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  static fromBytes(bytes: Uint8Array): NarHash {
    if (bytes.length !== BYTES) {
      throw new NarvikError('invalid-argument', `Cannot take a NAR hash: found ${bytes.length} bytes, needed ${BYTES}`)
    }
    return new NarHash(Uint8Array.from(bytes))
  }

  /**
   * Reads any of Nix's text forms: `sha256-<base64>`, `sha256:<nix32 | hex | base64>`, or bare nix32 or hex.
   * @throws NarvikError `invalid-argument` where the text is none of them.
   */
  static parse(text: string): NarHash {
    const hash = NarHash.tryParse(text)
    if (hash === undefined) {
      const shown = JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
      throw new NarvikError('invalid-argument', `Cannot read a NAR hash: found ${shown}, needed sha256-<base64>, sha256:<nix32>, sha256:<hex> or 52 nix32 characters`)
    }
    return hash
  }

  /** As `parse`, but undefined where the text is no NAR hash. */
  static tryParse(text: string): NarHash | undefined {
    const bytes = decode(text)
    return bytes === undefined ? undefined : new NarHash(bytes)
  }

  /** `sha256-<base64>`: the form that is shown. */
  toSri(): string {
    return `sha256-${Buffer.from(this.bytes).toString('base64')}`
  }

  /** 52 characters without a prefix: the form in file names and keys. */
  toNix32(): string {
    return encodeNix32(this.bytes)
  }

  toHex(): string {
    return Buffer.from(this.bytes).toString('hex')
  }

  toString(): string {
    return this.toSri()
  }

  toJSON(): string {
    return this.toSri()
  }

  equals(other: NarHash): boolean {
    return Buffer.compare(this.bytes, other.bytes) === 0
  }
}

function decode(text: string): Uint8Array | undefined {
  if (text.startsWith('sha256-')) return decodeBase64(text.slice(7))
  const bare = text.startsWith('sha256:') ? text.slice(7) : text
  if (bare.length === 64) return decodeHex(bare)
  if (bare.length === 52) return decodeNix32(bare, BYTES)
  return bare === text ? undefined : decodeBase64(bare)
}

function decodeHex(text: string): Uint8Array | undefined {
  return /^[0-9a-f]{64}$/i.test(text) ? Uint8Array.from(Buffer.from(text, 'hex')) : undefined
}

function decodeBase64(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/]{43}=?$/.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64')
  // The last character carries two bits that belong to no byte; they must be zero for the text to be the only one.
  const canonical = bytes.length === BYTES && bytes.toString('base64').startsWith(text.slice(0, 43))
  return canonical ? Uint8Array.from(bytes) : undefined
}
