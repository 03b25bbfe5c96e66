import { blake3 } from '@napi-rs/blake-hash'
import { NarvikError } from '../errors.ts'
import { MAX_MANIFEST_BYTES } from '../limits.ts'
import { ChunkList } from './chunk-list.ts'
import { decodeChunks, encodeChunks } from './chunk-list-codec.ts'
import type { Listing } from './listing.ts'
import { decodeListing, encodeListing } from './listing-codec.ts'
import { readVarint, varintLength, VarintProblem, writeVarint } from './varint.ts'

/**
 * What lets a host lay out an image before it has a byte of it, and check each chunk as it comes. A manifest can lie; the NAR hash can't. That the
 * chunks are of the NAR that the listing makes, whoever knows both NARs and manifests sees to: `Layout.describedBy`.
 */
export interface Manifest {
  readonly listing: Listing
  readonly chunks: ChunkList
}

/**
 * The bytes of a manifest, the same on every host for the same tree: `NARVIKMF`, the version, then its sections in the order of
 * their numbers, each as number (one byte), length (varint) and bytes. Section 1 is the listing, section 2 the chunk list; where that makes the manifest too
 * large, none.
 * @throws NarvikError `too-large` where it is over MAX_MANIFEST_BYTES.
 */
export function encodeManifest(listing: Listing, chunks: ChunkList): Uint8Array<ArrayBuffer> {
  const listed = encodeListing(listing)
  const all = [listed, encodeChunks(chunks)]
  const sections = lengthOf(all) > MAX_MANIFEST_BYTES ? [listed, NO_CHUNKS] : all
  const length = lengthOf(sections)
  if (length > MAX_MANIFEST_BYTES) throw new NarvikError('too-large', `Cannot make a manifest: found ${length} bytes for ${listing.count} entries, needed at most ${MAX_MANIFEST_BYTES}`)
  const bytes = new Uint8Array(length)
  bytes.set(HEADER)
  let at = HEADER.length
  for (const [index, body] of sections.entries()) {
    bytes[at] = index + 1
    const start = writeVarint(bytes, at + 1, body.length)
    bytes.set(body, start)
    at = start + body.length
  }
  return bytes
}

/**
 * Reads what `encodeManifest` wrote, and nothing else. It takes memory in proportion to `bytes` at most.
 * @throws NarvikError `invalid-manifest`.
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw invalid(`found ${bytes.length} bytes, needed at most ${MAX_MANIFEST_BYTES}`)
  if (!isOfThisVersion(bytes)) throw invalid(`found another beginning, needed that of a manifest of version ${VERSION}`)
  const listing = readSection(bytes, HEADER.length, LISTING_SECTION)
  const chunks = readSection(bytes, listing.end, CHUNKS_SECTION)
  if (chunks.end !== bytes.length) throw invalid(`found ${bytes.length - chunks.end} bytes after the last section, needed none`)
  return { listing: decodeListing(listing.body), chunks: decodeChunks(chunks.body) }
}

/** Whether a manifest lists the chunks: those of a very large image are too many. */
export function listsChunks(bytes: Uint8Array): boolean {
  return readSection(bytes, readSection(bytes, HEADER.length, LISTING_SECTION).end, CHUNKS_SECTION).body.length > NO_CHUNKS.length
}

/** Whether `bytes` are a manifest as this Narvik makes them: those of version 1 had no chunks. */
export function isOfThisVersion(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(0, HEADER.length), HEADER) === 0
}

/** What a manifest is named by: its BLAKE3 in lower case hex. */
export function manifestDigest(bytes: Uint8Array): string {
  return blake3(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).toString('hex')
}

const LISTING_SECTION = 1
const CHUNKS_SECTION = 2
const VERSION = 2
const NO_CHUNKS = encodeChunks(ChunkList.none())
const HEADER = Buffer.from([...Buffer.from('NARVIKMF', 'latin1'), VERSION])

function lengthOf(sections: readonly Uint8Array[]): number {
  return sections.reduce((sum, body) => sum + 1 + varintLength(body.length) + body.length, HEADER.length)
}

function readSection(bytes: Uint8Array, at: number, section: number): { body: Uint8Array, end: number } {
  if (bytes[at] !== section) throw invalid(`found section ${String(bytes[at])}, needed ${section}`)
  const { value: length, end: start } = readLength(bytes, at + 1)
  const left = bytes.length - start
  if (length > left) throw invalid(`found a section ${section} of ${length} bytes, needed at most the ${left} that are left`)
  return { body: bytes.subarray(start, start + length), end: start + length }
}

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
