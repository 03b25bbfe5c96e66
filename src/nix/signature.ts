import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from 'node:crypto'
import { NarvikError } from '../errors.ts'
import { quote } from './quote.ts'
import { compareBytes, DEFAULT_STORE_DIR, tryParseStorePath } from './store-path.ts'
import type { NarHash } from '../image/nar-hash.ts'

/** Nix's keys and signatures: a name, a colon, base64; Ed25519 (nix: src/libutil/signature/local-keys.cc). */
export interface PublicKey {
  readonly name: string
  readonly key: KeyObject
}

/** `key` is the private half. Never logged or printed, save by `formatSecretKey`. */
export interface SecretKey {
  readonly name: string
  readonly key: KeyObject
}

export interface Signature {
  readonly keyName: string
  /** 64 bytes. */
  readonly bytes: Uint8Array
}

/** What a signature vouches for. Deriver and content address are not part of it. */
export interface SignedPath {
  readonly path: string
  readonly narHash: NarHash
  /** Bytes; a signature of an unknown size is worth nothing, so it is above 0. */
  readonly narSize: number
  /** Full paths, in any order. */
  readonly references: readonly string[]
}

const PUBLIC_BYTES = 32
const SECRET_BYTES = 64
const SIGNATURE_BYTES = 64
const MAX_TEXT = 1024
// RFC 8410: what comes before the raw bytes in PKCS #8 and in SPKI.
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')

/**
 * The text that is signed: `1;<path>;sha256:<nix32>;<size>;<references, sorted, with commas>`.
 * @throws NarvikError `invalid-argument` where a field could not be told from its neighbours, or the size is 0.
 */
export function fingerprintOf({ path, narHash, narSize, references }: SignedPath, storeDir = DEFAULT_STORE_DIR): string {
  if (!Number.isSafeInteger(narSize) || narSize <= 0) {
    throw new NarvikError('invalid-argument', `Cannot make the fingerprint of ${quote(path)}: found a size of ${narSize} bytes, needed more than 0`)
  }
  for (const each of [path, ...references]) {
    if (tryParseStorePath(each, storeDir) === undefined) throw new NarvikError('invalid-argument', `Cannot make the fingerprint of ${quote(path)}: found ${quote(each)}, needed a store path in ${storeDir}`)
  }
  const sorted = [...new Set(references)].sort(compareBytes)
  return `1;${path};sha256:${narHash.toNix32()};${narSize};${sorted.join(',')}`
}

/**
 * Reads a public key as it stands in `trusted-public-keys` or in a file.
 * @throws NarvikError `invalid-argument`.
 */
export function parsePublicKey(text: string): PublicKey {
  const parsed = parseNamed(text.trim(), PUBLIC_BYTES)
  if (parsed === undefined) throw new NarvikError('invalid-argument', `Cannot read a public key: found ${quote(text)}, needed a name, a colon and ${PUBLIC_BYTES} bytes in base64`)
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, parsed.bytes]), format: 'der', type: 'spki' })
  return { name: parsed.name, key }
}

export function formatPublicKey({ name, key }: PublicKey): string {
  return `${name}:${rawPublic(key).toString('base64')}`
}

/**
 * Reads a secret key as `nix key generate-secret` writes it.
 * @throws NarvikError `invalid-argument`; the message never has any of the text.
 */
export function parseSecretKey(text: string): SecretKey {
  const parsed = parseNamed(text.trim(), SECRET_BYTES)
  if (parsed === undefined) throw new NarvikError('invalid-argument', `Cannot read a secret key: found ${text.length} characters, needed a name, a colon and ${SECRET_BYTES} bytes in base64`)
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, parsed.bytes.subarray(0, 32)]), format: 'der', type: 'pkcs8' })
  if (!rawPublic(createPublicKey(key)).equals(parsed.bytes.subarray(32))) {
    throw new NarvikError('invalid-argument', `Cannot read the secret key ${quote(parsed.name)}: found halves that do not belong together, needed those that Nix wrote`)
  }
  return { name: parsed.name, key }
}

/** As Nix writes it to a file; no final newline. */
export function formatSecretKey({ name, key }: SecretKey): string {
  const seed = key.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
  return `${name}:${Buffer.concat([seed, rawPublic(createPublicKey(key))]).toString('base64')}`
}

export function generateSecretKey(name: string): SecretKey {
  if (!isKeyName(name)) throw new NarvikError('invalid-argument', `Cannot make a key: found the name ${quote(name)}, needed printable characters without spaces and colons`)
  return { name, key: generateKeyPairSync('ed25519').privateKey }
}

export function publicKeyOf({ name, key }: SecretKey): PublicKey {
  return { name, key: createPublicKey(key) }
}

/** Reads `key name:base64`; undefined where it is no Ed25519 signature, as Nix up to 2.33 let pass. */
export function tryParseSignature(text: string): Signature | undefined {
  const parsed = parseNamed(text, SIGNATURE_BYTES)
  return parsed === undefined ? undefined : { keyName: parsed.name, bytes: parsed.bytes }
}

/** The signature of a fingerprint, in Nix's form. */
export function signFingerprint(fingerprint: string, { name, key }: SecretKey): string {
  return `${name}:${sign(null, Buffer.from(fingerprint), key).toString('base64')}`
}

/** 64 bytes of Ed25519 over any message; it should begin with what it is for, so that it can stand for nothing else. */
export function signBytes(message: Uint8Array, { key }: SecretKey): Uint8Array {
  return Uint8Array.from(sign(null, message, key))
}

/**
 * What each signature is worth: `good` where one of the keys made it; `bad` where a key of its name did not; `unknown`
 * where no key has its name; `malformed` where it is no signature. Several keys may share a name, as during a rotation.
 */
export type SignatureVerdict = 'good' | 'bad' | 'unknown' | 'malformed'

export interface CheckedSignature {
  readonly text: string
  readonly keyName: string | null
  readonly verdict: SignatureVerdict
  /** The key that made a good one, as `formatPublicKey` prints it. */
  readonly madeBy: string | null
}

export function checkSignatures(fingerprint: string, signatures: readonly string[], keys: readonly PublicKey[]): CheckedSignature[] {
  const message = Buffer.from(fingerprint)
  return signatures.map(text => {
    const signature = tryParseSignature(text)
    if (signature === undefined) return { text, keyName: null, verdict: 'malformed', madeBy: null }
    const named = keys.filter(({ name }) => name === signature.keyName)
    const maker = named.find(({ key }) => verify(null, message, key, signature.bytes))
    const verdict = maker !== undefined ? 'good' : named.length > 0 ? 'bad' : 'unknown'
    return { text, keyName: signature.keyName, verdict, madeBy: maker === undefined ? null : formatPublicKey(maker) }
  })
}

/** Whether the text can stand before the colon of a key. */
export function isKeyName(text: string): boolean {
  return text.length <= 255 && /^[\x21-\x39\x3b-\x7e]+$/.test(text)
}

function parseNamed(text: string, length: number): { name: string, bytes: Buffer } | undefined {
  if (text.length > MAX_TEXT) return undefined
  const colon = text.indexOf(':')
  const name = text.slice(0, Math.max(colon, 0))
  const base64 = text.slice(colon + 1)
  if (!isKeyName(name)) return undefined
  const bytes = Buffer.from(base64, 'base64')
  return bytes.length === length && bytes.toString('base64') === base64 ? { name, bytes } : undefined
}

function rawPublic(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' }).subarray(-PUBLIC_BYTES)
}
