import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { z } from 'zod'
import { NarvikError } from '../errors.ts'
import { narHashText } from '../image/metadata.ts'
import { NarHash } from '../image/nar-hash.ts'
import { CLOCK_SKEW_MS, MAX_NAR_SIZE, MAX_RECORD_BYTES, RECORD_LIFETIME_MS } from '../limits.ts'

/** The DHT's name for signed image records: keys are `/narvik-image/<peer id>/<nix32 of the NAR hash>`. */
export const RECORD_NAMESPACE = 'narvik-image'
/** Longest time for which a record may say that it lives: a withdrawal outlives every announcement of the image. */
export const MAX_RECORD_LIFETIME_MS = 2 * RECORD_LIFETIME_MS

const SIGNATURE_BYTES = 64
/** What is signed starts with this, so that a signature of the host's key for another purpose is none for a record. */
const PURPOSE = Buffer.from('narvik image record 1\0', 'utf8')

const common = {
  version: z.literal(1),
  narHash: narHashText,
  /** Grows with each record of a key: milliseconds since 1970 when it was made, or one more than the last. */
  seq: z.int().min(0),
  /** Milliseconds since 1970. */
  expires: z.int().min(0),
}
const recordSchema = z.discriminatedUnion('status', [
  z.strictObject({
    ...common,
    status: z.literal('held'),
    narSize: z.int().min(0).max(MAX_NAR_SIZE),
    manifestDigest: z.string().regex(/^[0-9a-f]{64}$/).nullable(),
  }),
  z.strictObject({ ...common, status: z.literal('withdrawn') }),
])

/** What a peer says, under its signature, of one image: that it holds it, or that it does no longer. */
export type ImageRecord = z.output<typeof recordSchema>

/** The bytes of the DHT key of a peer's record of an image. */
export function recordKey(peerId: string, narHash: NarHash): Uint8Array {
  return Buffer.from(`/${RECORD_NAMESPACE}/${peerId}/${narHash.toNix32()}`, 'utf8')
}

/** A record on the wire: 64 bytes of Ed25519 signature over the purpose, the key and the payload; then the payload, JSON. */
export async function signRecord(key: Uint8Array, record: ImageRecord, privateKey: PrivateKey): Promise<Uint8Array> {
  const payload = Buffer.from(JSON.stringify({ ...record, narHash: record.narHash.toSri() }), 'utf8')
  const signature = await privateKey.sign(Buffer.concat([PURPOSE, key, payload]))
  return Uint8Array.from(Buffer.concat([signature, payload]))
}

export interface VerifiedRecord {
  readonly peerId: string
  readonly record: ImageRecord
}

/**
 * The record in `value`, once it is proven to be its key's owner's and to be of this time.
 * @throws NarvikError `refused` where it is forged, expired, from the future, oversized, malformed or under the wrong key.
 */
export async function verifyRecord(key: Uint8Array, value: Uint8Array, now: number): Promise<VerifiedRecord> {
  if (value.byteLength > MAX_RECORD_BYTES) refuse(`${value.byteLength} bytes`, `at most ${MAX_RECORD_BYTES}`)
  if (value.byteLength <= SIGNATURE_BYTES) refuse(`${value.byteLength} bytes`, `more than a signature of ${SIGNATURE_BYTES}`)
  const { peerId, narHash } = parseKey(key)
  const payload = value.subarray(SIGNATURE_BYTES)
  await checkSignature(peerId, value.subarray(0, SIGNATURE_BYTES), Buffer.concat([PURPOSE, key, payload]))
  const record = parsePayload(payload)
  if (!record.narHash.equals(narHash)) refuse(`a record of ${record.narHash.toNix32()}`, `one of its key's ${narHash.toNix32()}`)
  checkTimes(record, now)
  return { peerId, record }
}

function parseKey(key: Uint8Array): { peerId: string, narHash: NarHash } {
  const [root, namespace, peerId, nix32, ...rest] = Buffer.from(key).toString('utf8').split('/')
  const narHash = nix32 === undefined ? undefined : NarHash.tryParse(nix32)
  if (root !== '' || namespace !== RECORD_NAMESPACE || peerId === undefined || narHash === undefined || rest.length > 0) {
    return refuse('another key', `/${RECORD_NAMESPACE}/<peer id>/<NAR hash>`)
  }
  // Each record has one key: no other text form of the same hash or peer.
  if (Buffer.compare(recordKey(peerId, narHash), key) !== 0) refuse('a key in another form', 'the canonical one')
  return { peerId, narHash }
}

async function checkSignature(peerId: string, signature: Uint8Array, signed: Uint8Array): Promise<void> {
  const publicKey = publicKeyOf(peerId)
  if (!await publicKey.verify(signed, signature)) refuse('a signature that does not verify', `one of ${peerId}`)
}

/** An Ed25519 peer id is its public key. */
function publicKeyOf(text: string): { verify(data: Uint8Array, signature: Uint8Array): boolean | Promise<boolean> } {
  try {
    const peerId = peerIdFromString(text)
    if (peerId.type === 'Ed25519' && peerId.toString() === text) return peerId.publicKey
  } catch (error) {
    refuse('a key without a peer id', 'one with an Ed25519 peer id', error)
  }
  return refuse('a key of another kind of peer', 'one of an Ed25519 peer id')
}

function parsePayload(payload: Uint8Array): ImageRecord {
  try {
    return recordSchema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)))
  } catch (error) {
    return refuse('a payload of another form', 'a record of version 1', error)
  }
}

function checkTimes({ seq, expires }: ImageRecord, now: number): void {
  if (expires <= now - CLOCK_SKEW_MS) refuse(`a record that expired ${now - expires} ms ago`, 'a live one')
  if (expires > now + MAX_RECORD_LIFETIME_MS + CLOCK_SKEW_MS) refuse(`a record that lives ${expires - now} ms more`, `at most ${MAX_RECORD_LIFETIME_MS}`)
  // A number from the far future would lock its owner out for as long.
  if (seq > now + CLOCK_SKEW_MS) refuse(`a sequence number ${seq - now} ms in the future`, 'one of this time')
}

function refuse(found: string, needed: string, cause?: unknown): never {
  throw new NarvikError('refused', `Cannot accept an image record: found ${found}, needed ${needed}`, cause === undefined ? {} : { cause })
}
