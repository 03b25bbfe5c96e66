import { NarvikError } from '../errors.ts'
import { MAX_NAR_NAME_BYTES, MAX_NAR_SIZE, MAX_NAR_TARGET_BYTES } from '../limits.ts'
import { DIRECTORY, EXECUTABLE, type Listing, ListingBuilder, ListingProblem, REGULAR, SYMLINK } from './listing.ts'
import { varintLength, VarintProblem, readVarint, writeVarint } from './varint.ts'

/**
 * The bytes of a listing; the same tree always gives the same bytes. The version, then each entry in order: its tag,
 * its name (not for the root), then the size of a file or the target of a symlink; LEAVE ends a directory. Names and targets are
 * preceded by their length. Lengths and sizes are varints.
 */
export function encodeListing(listing: Listing): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(encodedLength(listing))
  bytes[0] = VERSION
  let at = 1
  for (let entry = 0; entry < listing.count; entry++) {
    const tag = listing.columns.kinds[entry] ?? 0
    bytes[at++] = tag
    if (entry > 0) at = writeBytes(bytes, at, listing.name(entry))
    if (tag === SYMLINK) at = writeBytes(bytes, at, listing.target(entry))
    else if (tag !== DIRECTORY) at = writeVarint(bytes, at, listing.size(entry))
    at += directoriesEnding(listing, entry)
  }
  return bytes
}

/**
 * Reads what `encodeListing` wrote, and nothing else. It takes memory in proportion to `bytes` at most.
 * @throws NarvikError `invalid-manifest` with the byte offset.
 */
export function decodeListing(bytes: Uint8Array): Listing {
  const reader: Reader = { bytes, at: 0 }
  try {
    return decode(reader)
  } catch (error) {
    if (!(error instanceof ListingProblem || error instanceof VarintProblem)) throw error
    throw new NarvikError('invalid-manifest', `Cannot read a listing: at byte ${reader.at}, ${error.message}`)
  }
}

interface Reader {
  readonly bytes: Uint8Array
  at: number
}

const VERSION = 1
const LEAVE = 0

function encodedLength(listing: Listing): number {
  let length = 1
  for (let entry = 0; entry < listing.count; entry++) {
    const kind = listing.kind(entry)
    length += 1 + directoriesEnding(listing, entry)
    if (entry > 0) length += varintLength(listing.nameLength(entry)) + listing.nameLength(entry)
    if (kind === 'regular') length += varintLength(listing.size(entry))
    if (kind === 'symlink') length += varintLength(listing.targetLength(entry)) + listing.targetLength(entry)
  }
  return length
}

/** How many directories have this entry as their last; an empty directory is its own. */
function directoriesEnding(listing: Listing, entry: number): number {
  const nextDepth = entry + 1 < listing.count ? listing.depth(entry + 1) : 0
  const depthInside = listing.depth(entry) + (listing.kind(entry) === 'directory' ? 1 : 0)
  return depthInside - nextDepth
}

function writeBytes(bytes: Uint8Array, at: number, value: Uint8Array): number {
  const start = writeVarint(bytes, at, value.length)
  bytes.set(value, start)
  return start + value.length
}

function decode(reader: Reader): Listing {
  if (reader.bytes[reader.at] !== VERSION) throw new ListingProblem(`found version ${String(reader.bytes[reader.at])}, needed ${VERSION}`)
  reader.at++
  const builder = new ListingBuilder()
  let depth = 0
  let isRoot = true
  do {
    depth += decodeEntry(reader, builder, isRoot)
    isRoot = false
  } while (depth > 0)
  if (reader.at < reader.bytes.length) throw new ListingProblem(`found ${reader.bytes.length - reader.at} bytes after the end, needed none`)
  return builder.build()
}

/** The change of depth. The reader stays where an entry begins until the builder has taken it, for the message. */
function decodeEntry(reader: Reader, builder: ListingBuilder, isRoot: boolean): number {
  const rest: Reader = { bytes: reader.bytes, at: reader.at }
  const tag = takeByte(rest)
  let change = 0
  if (tag === LEAVE) {
    builder.leave()
    change = -1
  } else {
    if (tag > SYMLINK) throw new ListingProblem(`found tag ${tag}, needed one of ${LEAVE} to ${SYMLINK}`)
    const name = isRoot ? NO_NAME : takeBytes(rest, MAX_NAR_NAME_BYTES, 'a name')
    if (tag === DIRECTORY) builder.directory(name)
    if (tag === REGULAR || tag === EXECUTABLE) builder.regular(name, takeVarint(rest, MAX_NAR_SIZE), tag === EXECUTABLE)
    if (tag === SYMLINK) builder.symlink(name, takeBytes(rest, MAX_NAR_TARGET_BYTES, 'a symlink target'))
    if (tag === DIRECTORY) change = 1
  }
  reader.at = rest.at
  return change
}

const NO_NAME = new Uint8Array(0)

function takeByte(reader: Reader): number {
  const byte = reader.bytes[reader.at++]
  if (byte === undefined) throw new ListingProblem('found the end, needed another entry')
  return byte
}

function takeVarint(reader: Reader, max: number): number {
  const { value, end } = readVarint(reader.bytes, reader.at, max)
  reader.at = end
  return value
}

function takeBytes(reader: Reader, maxLength: number, what: string): Uint8Array {
  const length = takeVarint(reader, maxLength)
  const left = reader.bytes.length - reader.at
  if (length > left) throw new ListingProblem(`found ${what} of ${length} bytes, needed at most the ${left} that are left`)
  reader.at += length
  return reader.bytes.subarray(reader.at - length, reader.at)
}
