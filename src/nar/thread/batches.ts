import { closeSync, openSync, readSync } from 'node:fs'
import { NarvikError } from '../../errors.ts'
import type { Listing } from '../../image/listing.ts'
import { changedError, OPEN_FILE } from '../directory.ts'
import { headLength, tailLength, writeHead, writeTail } from '../framing.ts'
import { PlainPaths } from './plain-paths.ts'

/** Bytes of the NAR that are hashed at once; large, so that what goes with it is nothing. */
export const BATCH_BYTES = 1024 * 1024
/** Bytes of a buffer that has room for any batch, and for the byte that is read past each file's end. */
export const BATCH_BUFFER_BYTES = BATCH_BYTES + 4096
/** A file over this size is not put into a batch. */
export const MAX_BATCHED_FILE_BYTES = BATCH_BYTES / 4

/** Entries that follow one another, whose part of the NAR is within BATCH_BYTES, or a single entry with a large file. */
export interface Batches {
  /** The first entry of each batch, and the number of entries at the end. */
  readonly firsts: Uint32Array
}

const MANY_FILES = 1000

/** Whether there are enough files for a second thread to be worth its while. */
export function areManyFiles(listing: Listing): boolean {
  let files = 0
  for (let entry = 0; entry < listing.count && files < MANY_FILES; entry++) if (listing.kind(entry) === 'regular') files++
  return files === MANY_FILES
}

export function batchesOf(listing: Listing): Batches {
  const firsts: number[] = []
  let room = 0
  for (let entry = 0; entry < listing.count; entry++) {
    const size = listing.size(entry)
    const isLarge = size > MAX_BATCHED_FILE_BYTES
    const length = headLength(listing, entry) + size + tailLength(listing, entry)
    if (isLarge || length > room) {
      firsts.push(entry)
      room = isLarge ? 0 : BATCH_BYTES
    }
    if (isLarge) continue
    room -= length
  }
  return { firsts: Uint32Array.from([...firsts, listing.count]) }
}

export function countOf({ firsts }: Batches): number {
  return firsts.length - 1
}

export function isLargeBatch(listing: Listing, { firsts }: Batches, batch: number): boolean {
  return listing.size(firsts[batch] ?? 0) > MAX_BATCHED_FILE_BYTES
}

/** Bytes of a batch; 0 for one of a large file. */
export function batchLength(listing: Listing, batches: Batches, batch: number): number {
  if (isLargeBatch(listing, batches, batch)) return 0
  let length = 0
  for (let entry = batches.firsts[batch] ?? 0; entry < (batches.firsts[batch + 1] ?? 0); entry++) length += headLength(listing, entry) + listing.size(entry) + tailLength(listing, entry)
  return length
}

/** Makes batches of a tree's NAR, in any order, reading its files without waiting turns. */
export class BatchFiller {
  readonly paths: PlainPaths
  readonly #listing: Listing
  readonly #batches: Batches

  constructor(root: string, listing: Listing, batches: Batches) {
    this.paths = new PlainPaths(root, listing)
    this.#listing = listing
    this.#batches = batches
  }

  /**
   * Writes a batch to the beginning of `out`; returns its length.
   * @throws NarvikError `changed-while-reading` where a file is gone, replaced or not of its size.
   */
  fill(batch: number, out: Buffer): number {
    const end = this.#batches.firsts[batch + 1] ?? 0
    let at = 0
    for (let entry = this.#batches.firsts[batch] ?? 0; entry < end; entry++) {
      at = writeHead(this.#listing, entry, out, at)
      if (this.#listing.kind(entry) === 'regular') at += this.#read(entry, out, at)
      at = writeTail(this.#listing, entry, out, at)
    }
    return at
  }

  close(): void {
    this.paths.close()
  }

  /** Reads one byte more than there should be, to see that there isn't one; a short read of a file is its end. */
  #read(entry: number, out: Buffer, at: number): number {
    const size = this.#listing.size(entry)
    try {
      const fd = openSync(this.paths.path(entry), OPEN_FILE)
      try {
        const found = readSync(fd, out, at, size + 1, null)
        if (found !== size) throw changed(this.paths.show(entry), `found ${found > size ? 'more bytes' : `${found} bytes`}, needed ${size}`)
        return size
      } finally {
        closeSync(fd)
      }
    } catch (error) {
      throw changedError(error, `hash ${this.paths.show(entry)}`)
    }
  }
}

export function changed(path: string, problem: string): NarvikError {
  return new NarvikError('changed-while-reading', `Cannot hash ${path}: ${problem}`)
}
