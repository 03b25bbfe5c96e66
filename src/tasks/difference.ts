import type { Listing } from '../image/listing.ts'
import { encodeListing } from '../image/listing-codec.ts'
import type { Manifest } from '../image/manifest.ts'
import { Layout } from '../nar/layout.ts'

/** In what a tree that was read is not the one that was proven, in words; nothing where neither the entries nor the chunks tell. */
export function describeDifference(proven: Manifest, found: Manifest): string | undefined {
  if (Buffer.compare(encodeListing(proven.listing), encodeListing(found.listing)) !== 0) return describeEntry(proven.listing, found.listing)
  // The same entries, so the same size: what is cut alike and hashes alike is the same.
  if (proven.chunks.isNone || found.chunks.isNone) return undefined
  const others: number[] = []
  let bytes = 0
  for (let chunk = 0, other = 0; chunk < proven.chunks.count; chunk++) {
    while (other < found.chunks.count && found.chunks.offset(other) < proven.chunks.offset(chunk)) other++
    if (found.chunks.offset(other) === proven.chunks.offset(chunk) && Buffer.compare(found.chunks.hash(other), proven.chunks.hash(chunk)) === 0) continue
    others.push(chunk)
    bytes += proven.chunks.length(chunk)
  }
  const [first] = others
  if (first === undefined) return undefined
  return `${others.length} of its ${proven.chunks.count} chunks differ (${bytes} bytes), the first at byte ${proven.chunks.offset(first)} of the NAR, ${place(proven, first)}`
}

/** A chunk may be of many small files: which of them has changed, it does not tell. */
function place({ listing, chunks }: Manifest, chunk: number): string {
  const entries = [...Layout.of(listing).segments(chunks.offset(chunk), chunks.length(chunk))].flatMap(segment => segment.kind === 'contents' ? [segment.entry] : [])
  const [first = 0] = entries
  const last = entries.at(-1) ?? first
  return first === last ? `in ${named(listing, first)}` : `in one of ${named(listing, first)} to ${named(listing, last)}`
}

/** Both are in the order of the NAR, so the first entry that isn't the same tells whether one is missing, added or changed. */
function describeEntry(proven: Listing, found: Listing): string {
  for (let entry = 0; entry < proven.count && entry < found.count; entry++) {
    const order = compareEntries(proven, found, entry)
    if (order < 0) return `${named(proven, entry)} is missing`
    if (order > 0) return `${named(found, entry)} was not there`
    const [was, is] = [describe(proven, entry), describe(found, entry)]
    if (was !== is) return `${named(proven, entry)} is ${is}, and was ${was}`
    if (proven.kind(entry) === 'symlink' && Buffer.compare(proven.target(entry), found.target(entry)) !== 0) return `${named(proven, entry)} points elsewhere`
  }
  return proven.count > found.count ? `${named(proven, found.count)} is missing` : `${named(found, proven.count)} was not there`
}

function compareEntries(one: Listing, other: Listing, entry: number): number {
  // Where all before it is the same, the deeper of the two is in a directory that the other has left already.
  if (one.depth(entry) !== other.depth(entry)) return other.depth(entry) - one.depth(entry)
  return Buffer.compare(one.name(entry), other.name(entry))
}

function describe(listing: Listing, entry: number): string {
  const kind = listing.kind(entry)
  if (kind === 'directory') return 'a directory'
  if (kind === 'symlink') return 'a symlink'
  return `${listing.executable(entry) ? 'an executable' : 'a'} file of ${listing.size(entry)} bytes`
}

function named(listing: Listing, entry: number): string {
  return entry === 0 ? 'its root' : listing.show(entry)
}
