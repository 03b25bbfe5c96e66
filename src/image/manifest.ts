import { blake3 } from '@napi-rs/blake-hash'
import { NarvikError } from '../errors.ts'
import { MAX_MANIFEST_BYTES } from '../limits.ts'
import type { Listing } from './listing.ts'
import { decodeListing, encodeListing } from './listing-codec.ts'
import { readVarint, varintLength, VarintProblem, writeVarint } from './varint.ts'

/** What lets a host lay out an image before it has a byte of it. A manifest can lie; the NAR hash can't. */
export interface Manifest {
  readonly listing: Listing
}

/**
 * The bytes of a manifest, the same on every host for the same tree: `NARVIKMF`, the version, then its sections in the order of
 * their numbers, each as number (one byte), length (varint) and bytes. Section 1 is the listing.
 * @throws NarvikError `too-large` where it is over MAX_MANIFEST_BYTES.
 */
export function encodeManifest(listing: Listing): Uint8Array<ArrayBuffer> {
  const body = encodeListing(listing)
  const length = HEADER.length + 1 + varintLength(body.length) + body.length
  if (length > MAX_MANIFEST_BYTES) throw new NarvikError('too-large', `Cannot make a manifest: found ${length} bytes for ${listing.count} entries, needed at most ${MAX_MANIFEST_BYTES}`)
  const bytes = new Uint8Array(length)
  bytes.set(HEADER)
  bytes[HEADER.length] = LISTING_SECTION
  bytes.set(body, writeVarint(bytes, HEADER.length + 1, body.length))
  return bytes
}

/**
 * Reads what `encodeManifest` wrote, and nothing else.
 * @throws NarvikError `invalid-manifest`.
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw invalid(`found ${bytes.length} bytes, needed at most ${MAX_MANIFEST_BYTES}`)
  if (Buffer.compare(bytes.subarray(0, HEADER.length), HEADER) !== 0) throw invalid('found another beginning, needed that of a manifest of version 1')
  if (bytes[HEADER.length] !== LISTING_SECTION) throw invalid(`found section ${String(bytes[HEADER.length])}, needed ${LISTING_SECTION}`)
  const { value: length, end: start } = readLength(bytes, HEADER.length + 1)
  if (start + length !== bytes.length) throw invalid(`found a listing of ${length} bytes, needed the ${bytes.length - start} that are left`)
  return { listing: decodeListing(bytes.subarray(start)) }
}

/** What a manifest is named by: its BLAKE3 in lower case hex. */
export function manifestDigest(bytes: Uint8Array): string {
  return blake3(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).toString('hex')
}

const LISTING_SECTION = 1
/** The magic, and the version. */
const HEADER = Buffer.from('NARVIKMF\x01', 'latin1')

function readLength(bytes: Uint8Array, at: number): { value: number, end: number } {
  try {
    return readVarint(bytes, at, MAX_MANIFEST_BYTES)
  } catch (error) {
    if (error instanceof VarintProblem) throw invalid(error.message)
    throw error
  }
}

function invalid(problem: string): NarvikError {
  return new NarvikError('invalid-manifest', `Cannot read a manifest: ${problem}`)
}
