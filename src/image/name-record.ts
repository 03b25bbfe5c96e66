import { z } from 'zod'
import { NarvikError } from '../errors.ts'
import { CLOCK_SKEW_MS, MAX_NAME_BYTES, MAX_NAME_VALIDITY_MS, MAX_RECORD_BYTES } from '../limits.ts'
import { imageName, narHashText } from './metadata.ts'

/** The DHT's name for published names: keys are `/narvik-name/<public key, hex>/<name>`. */
export const NAME_NAMESPACE = 'narvik-name'

const SIGNATURE_BYTES = 64
/** What is signed starts with this, so that a signature of the key for another purpose, such as a store path, is none for a name. */
const PURPOSE = Buffer.from('narvik name record 1\0', 'utf8')

const nameRecordSchema = z.strictObject({
  version: z.literal(1),
  /** The public key, as Nix writes it: a name, a colon, base64. */
  publisher: z.string().max(512).regex(/^[\x21-\x39\x3b-\x7e]{1,255}:[A-Za-z0-9+/]{43}=$/),
  name: imageName,
  narHash: narHashText,
  /** Grows with each record of a name. */
  seq: z.int().min(0),
  /** Milliseconds since 1970. */
  publishedAt: z.int().min(0),
  /** Milliseconds since 1970. */
  expires: z.int().min(0),
})

/** What the holder of a key says, under its signature: that a name stands for an image, until then. */
export type NameRecord = z.output<typeof nameRecordSchema>

/** A record as it came: of the right form, and not proven to be its publisher's. */
export interface ReadNameRecord {
  readonly record: NameRecord
  /** Bytes of its key in the DHT. */
  readonly key: Uint8Array
  /** 64 bytes of Ed25519. */
  readonly signature: Uint8Array
  /** What the signature is over. */
  readonly signed: Uint8Array
}

/** The 32 bytes of a public key in Nix's form, as hex: what tells publishers apart, as a key may be called by several names. */
export function publisherId(publicKey: string): string {
  return Buffer.from(publicKey.slice(publicKey.indexOf(':') + 1), 'base64').toString('hex')
}

/** What a public key is called: the part before the colon. */
export function publisherName(publicKey: string): string {
  return publicKey.slice(0, publicKey.indexOf(':'))
}

/** The bytes of the DHT key of a name. */
export function nameKey(publisher: string, name: string): Uint8Array {
  return Buffer.from(`/${NAME_NAMESPACE}/${publisher}/${name}`, 'utf8')
}

/** Whose name and which name a key is of, the publisher as the hex of the public key; undefined for any other key. */
export function nameOfKey(key: Uint8Array): { readonly publisher: string, readonly name: string } | undefined {
  const [, publisher, name] = NAME_KEY.exec(Buffer.from(key).toString('utf8')) ?? []
  return publisher === undefined || name === undefined ? undefined : { publisher, name }
}

const NAME_KEY = new RegExp(`^/${NAME_NAMESPACE}/([0-9a-f]{64})/([^/\\0]{1,${MAX_NAME_BYTES}})$`)

/** A record on the wire: 64 bytes of Ed25519 signature over the purpose, the key and the payload; then the payload, JSON. */
export function writeNameRecord(record: NameRecord, sign: (message: Uint8Array) => Uint8Array): Uint8Array {
  const payload = Buffer.from(JSON.stringify({ ...record, narHash: record.narHash.toSri() }), 'utf8')
  return Uint8Array.from(Buffer.concat([sign(signedBytes(record, payload)), payload]))
}

/** @throws NarvikError `refused` where the bytes are too many, or no record. */
export function readNameRecord(value: Uint8Array): ReadNameRecord {
  if (value.byteLength > MAX_RECORD_BYTES) refuseName(`${value.byteLength} bytes`, `at most ${MAX_RECORD_BYTES}`)
  if (value.byteLength <= SIGNATURE_BYTES) refuseName(`${value.byteLength} bytes`, `more than a signature of ${SIGNATURE_BYTES}`)
  const payload = value.subarray(SIGNATURE_BYTES)
  const record = parsePayload(payload)
  const key = nameKey(publisherId(record.publisher), record.name)
  return { record, key, signature: value.subarray(0, SIGNATURE_BYTES), signed: signedBytes(record, payload) }
}

/** @throws NarvikError `refused` where a record is not of this time. */
export function checkNameTimes({ seq, publishedAt, expires }: NameRecord, now: number): void {
  if (expires <= now) refuseName(`a record that expired on ${new Date(expires).toISOString()}`, 'a live one')
  if (publishedAt > now + CLOCK_SKEW_MS) refuseName(`a record from ${publishedAt - now} ms in the future`, 'one of this time')
  if (expires > publishedAt + MAX_NAME_VALIDITY_MS) refuseName(`a record for ${expires - publishedAt} ms`, `at most ${MAX_NAME_VALIDITY_MS}`)
  // A number from the far future would lock its owner out for as long.
  if (seq > now + CLOCK_SKEW_MS) refuseName(`a sequence number ${seq - now} ms in the future`, 'one of this time')
}

export function refuseName(found: string, needed: string, cause?: unknown): never {
  throw new NarvikError('refused', `Cannot accept a published name: found ${found}, needed ${needed}`, cause === undefined ? {} : { cause })
}

function signedBytes({ publisher, name }: NameRecord, payload: Uint8Array): Uint8Array {
  return Buffer.concat([PURPOSE, nameKey(publisherId(publisher), name), payload])
}

function parsePayload(payload: Uint8Array): NameRecord {
  try {
    return nameRecordSchema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)))
  } catch (error) {
    return refuseName('a payload of another form', 'a name record of version 1', error)
  }
}
