import type { Listing } from '../image/listing.ts'

/*
 * A NAR is, for each entry of the listing in its order: a head (everything up to the contents), the contents of a regular
 * file, and a tail (padding, and the ends of the entry and of every directory that it is the last of).
 */

/** Bytes after `length` bytes up to a multiple of 8. */
export function paddingOf(length: number): number {
  return (8 - length % 8) % 8
}

/** One NAR string: its length as 8 bytes, its bytes, zeros up to a multiple of 8. */
export function narString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  const framed = Buffer.alloc(8 + bytes.length + paddingOf(bytes.length))
  framed.writeUInt32LE(bytes.length)
  bytes.copy(framed, 8)
  return framed
}

/** What opens a NAR. */
export const MAGIC = 'nix-archive-1'

/** Bytes of the head of `entry`. */
export function headLength(listing: Listing, entry: number): number {
  const opening = entry === 0 ? ROOT.length : ENTRY.length + stringLength(listing.nameLength(entry)) + NODE.length
  switch (listing.kind(entry)) {
    case 'directory': return opening + DIRECTORY.length
    case 'regular': return opening + (listing.executable(entry) ? EXECUTABLE : REGULAR).length + 8
    case 'symlink': return opening + SYMLINK.length + stringLength(listing.targetLength(entry))
  }
}

/** Writes the head of `entry` at `at`; returns the offset after it. */
export function writeHead(listing: Listing, entry: number, out: Buffer, at: number): number {
  let end = entry === 0 ? put(out, at, ROOT) : writeName(listing, entry, out, at)
  switch (listing.kind(entry)) {
    case 'directory': return put(out, end, DIRECTORY)
    case 'regular':
      end = put(out, end, listing.executable(entry) ? EXECUTABLE : REGULAR)
      return writeLength(out, end, listing.size(entry))
    case 'symlink': return writeString(out, put(out, end, SYMLINK), listing.target(entry))
  }
}

/** Bytes of the tail of `entry`. */
export function tailLength(listing: Listing, entry: number): number {
  return paddingOf(listing.size(entry)) + nodesEnding(listing, entry) * NODE_END.length - (isLast(listing, entry) ? CLOSE_BYTES : 0)
}

/** Writes the tail of `entry` at `at`, and a few bytes more; returns the offset after it. */
export function writeTail(listing: Listing, entry: number, out: Buffer, at: number): number {
  let end = at + paddingOf(listing.size(entry))
  out.fill(0, at, end)
  const nodes = nodesEnding(listing, entry)
  for (let node = 0; node < nodes; node++) end = put(out, end, NODE_END)
  // The root is not in an `entry ( … )` of its own.
  return isLast(listing, entry) ? end - CLOSE_BYTES : end
}

/** More than is written for any head or tail. */
export const MAX_FRAME_BYTES = 8192

const ROOT = narString(MAGIC)
const ENTRY = strings('entry', '(', 'name')
const NODE = strings('node')
const DIRECTORY = strings('(', 'type', 'directory')
const REGULAR = strings('(', 'type', 'regular', 'contents')
const EXECUTABLE = strings('(', 'type', 'regular', 'executable', '', 'contents')
const SYMLINK = strings('(', 'type', 'symlink', 'target')
const NODE_END = strings(')', ')')
const CLOSE_BYTES = 16

function strings(...texts: string[]): Buffer {
  return Buffer.concat(texts.map(narString))
}

function stringLength(length: number): number {
  return 8 + length + paddingOf(length)
}

/** How many nodes have their end in the tail of `entry`: its own, unless it is a directory with entries, and those of which it is the last. */
function nodesEnding(listing: Listing, entry: number): number {
  const nextDepth = isLast(listing, entry) ? 0 : listing.depth(entry + 1)
  return listing.depth(entry) + 1 - nextDepth
}

function isLast(listing: Listing, entry: number): boolean {
  return entry + 1 === listing.count
}

function put(out: Buffer, at: number, bytes: Uint8Array): number {
  out.set(bytes, at)
  return at + bytes.length
}

function writeName(listing: Listing, entry: number, out: Buffer, at: number): number {
  return put(out, writeString(out, put(out, at, ENTRY), listing.name(entry)), NODE)
}

function writeString(out: Buffer, at: number, bytes: Uint8Array): number {
  const start = writeLength(out, at, bytes.length)
  const end = put(out, start, bytes)
  const padded = end + paddingOf(bytes.length)
  out.fill(0, end, padded)
  return padded
}

function writeLength(out: Buffer, at: number, length: number): number {
  out.writeUInt32LE(length % 2 ** 32, at)
  out.writeUInt32LE(Math.floor(length / 2 ** 32), at + 4)
  return at + 8
}
