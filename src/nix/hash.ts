import { NarvikError } from '../errors.ts'
import { decodeNix32, encodeNix32, nix32Length } from '../image/nix32.ts'
import { quote } from './quote.ts'

/** Bytes of a digest of each algorithm that Nix knows (nix: src/libutil/hash.cc; blake3 from 2.27 on). */
export const DIGEST_BYTES = { md5: 16, sha1: 20, sha256: 32, sha512: 64, blake3: 32 } as const
export type HashAlgorithm = keyof typeof DIGEST_BYTES

export interface NixHash {
  readonly algorithm: HashAlgorithm
  readonly bytes: Uint8Array
}

/** `sri` is `sha256-<base64>`; the others have no prefix. */
export type HashFormat = 'sri' | 'base64' | 'hex' | 'nix32'

/**
 * Reads `<algorithm>-<base64>` or `<algorithm>:<nix32 | hex | base64>`; with `algorithm` given, also a bare nix32, hex or
 * base64 text. Which of the three it is follows from the length.
 * @throws NarvikError `invalid-argument`.
 */
export function parseHash(text: string, algorithm?: HashAlgorithm): NixHash {
  const hash = tryParseHash(text, algorithm)
  if (hash !== undefined) return hash
  const needed = algorithm === undefined ? 'sha256-<base64>, sha256:<nix32> or sha256:<hex>, or the same of md5, sha1, sha512 or blake3' : `a ${algorithm} hash`
  throw new NarvikError('invalid-argument', `Cannot read a hash: found ${quote(text)}, needed ${needed}`)
}

/** As `parseHash`, but undefined where the text is no hash. */
export function tryParseHash(text: string, algorithm?: HashAlgorithm): NixHash | undefined {
  const separator = /[:-]/.exec(text)
  if (separator === null) return algorithm === undefined ? undefined : decode(algorithm, text, false)
  const prefix = text.slice(0, separator.index)
  if (!isHashAlgorithm(prefix) || (algorithm !== undefined && prefix !== algorithm)) return undefined
  return decode(prefix, text.slice(separator.index + 1), separator[0] === '-')
}

export function formatHash(hash: NixHash, format: HashFormat): string {
  switch (format) {
    case 'nix32': return encodeNix32(hash.bytes)
    case 'hex': return Buffer.from(hash.bytes).toString('hex')
    case 'base64': return Buffer.from(hash.bytes).toString('base64')
    case 'sri': return `${hash.algorithm}-${Buffer.from(hash.bytes).toString('base64')}`
  }
}

/** `sha256:<nix32>`: the form in narinfo files, content addresses and fingerprints. */
export function prefixedNix32(hash: NixHash): string {
  return `${hash.algorithm}:${encodeNix32(hash.bytes)}`
}

export function isHashAlgorithm(text: string): text is HashAlgorithm {
  return Object.hasOwn(DIGEST_BYTES, text)
}

function decode(algorithm: HashAlgorithm, text: string, base64Only: boolean): NixHash | undefined {
  const length = DIGEST_BYTES[algorithm]
  const bytes = base64Only ? decodeBase64(text, length) : decodeByLength(text, length)
  return bytes === undefined ? undefined : { algorithm, bytes }
}

function decodeByLength(text: string, length: number): Uint8Array | undefined {
  if (text.length === 2 * length) return /^[0-9a-f]+$/i.test(text) ? Uint8Array.from(Buffer.from(text, 'hex')) : undefined
  if (text.length === nix32Length(length)) return decodeNix32(text, length)
  return decodeBase64(text, length)
}

function decodeBase64(text: string, length: number): Uint8Array | undefined {
  if (text.length > 4 * Math.ceil(length / 3)) return undefined
  const bytes = Buffer.from(text, 'base64')
  if (bytes.length !== length) return undefined
  // Node skips what it does not know and ignores left-over bits; only the canonical text, with or without its padding, is taken.
  const canonical = bytes.toString('base64')
  return text === canonical || text === canonical.replace(/=+$/, '') ? Uint8Array.from(bytes) : undefined
}
