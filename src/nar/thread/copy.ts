import { closeSync, constants, copyFileSync, fchmodSync, fstatSync, ftruncateSync, openSync, readSync, type Stats, writeSync } from 'node:fs'
import { NarvikError } from '../../errors.ts'
import type { Listing } from '../../image/listing.ts'
import { changedError, OPEN_FILE, TreeCursor, treeError } from '../directory.ts'
import { runsOf } from '../sparse.ts'
import { makeSkeleton } from './skeleton.ts'

/**
 * Copies the tree at `from`, of which `listing` has just been made, to `to`, where nothing is yet. A file shares the blocks of its source where
 * the file system can do that; otherwise holes and blocks of zeros become holes. `check` is called with the bytes of contents copied so far.
 * @throws NarvikError `changed-while-reading`, `disk-full`.
 */
export function copyNow(from: string, to: string, listing: Listing, check: (bytes: number) => void): void {
  makeSkeleton(to, listing, () => { check(0) })
  const copy: Copy = { listing, check, source: new TreeCursor(from, listing), target: new TreeCursor(to, listing), buffer: Buffer.allocUnsafeSlow(COPY_BYTES), canClone: true, bytes: 0 }
  try {
    for (let entry = 0; entry < listing.count; entry++) if (listing.kind(entry) === 'regular') copyEntry(copy, entry)
  } finally {
    copy.source.close()
    copy.target.close()
  }
}

interface Copy {
  readonly listing: Listing
  readonly check: (bytes: number) => void
  readonly source: TreeCursor
  readonly target: TreeCursor
  readonly buffer: Buffer
  /** Until the file system has said that it can't. */
  canClone: boolean
  bytes: number
}

const COPY_BYTES = 1024 * 1024

function copyEntry(copy: Copy, entry: number): void {
  const source = openSource(copy, entry)
  try {
    const before = fstatSync(source)
    if (!matches(copy.listing, entry, before)) throw changed(copy, entry)
    copyContents(copy, entry, source, before.size)
    const after = fstatSync(source)
    if (!matches(copy.listing, entry, after) || after.mtimeMs !== before.mtimeMs || after.ctimeMs !== before.ctimeMs) throw changed(copy, entry)
  } finally {
    closeSync(source)
  }
}

function openSource(copy: Copy, entry: number): number {
  try {
    return openSync(copy.source.path(entry), OPEN_FILE)
  } catch (error) {
    throw changedError(error, `copy ${copy.source.show(entry)}`)
  }
}

function matches(listing: Listing, entry: number, stat: Stats): boolean {
  return stat.isFile() && stat.size === listing.size(entry) && ((stat.mode & 0o100) !== 0) === listing.executable(entry)
}

function copyContents(copy: Copy, entry: number, source: number, size: number): void {
  if (size === 0) return
  const { target } = copy
  let fd: number | undefined
  try {
    fd = openSync(target.path(entry), constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    if (cloned(copy, source, fd)) {
      fchmodSync(fd, copy.listing.executable(entry) ? 0o700 : 0o600)
      copy.check(copy.bytes += size)
    } else {
      copyBytes(copy, entry, source, fd)
    }
  } catch (error) {
    throw treeError(error, `copy to ${target.show(entry)}`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function cloned(copy: Copy, source: number, target: number): boolean {
  if (!copy.canClone) return false
  try {
    copyFileSync(`/proc/self/fd/${source}`, `/proc/self/fd/${target}`, constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch {
    // Whatever the reason, bytes can still be copied; where they can't, that says why.
    copy.canClone = false
    return false
  }
}

function copyBytes(copy: Copy, entry: number, source: number, target: number): void {
  const size = copy.listing.size(entry)
  // A failed attempt to share blocks may have emptied the file.
  ftruncateSync(target, size)
  for (let position = 0; position < size;) {
    const count = readSync(source, copy.buffer, 0, Math.min(COPY_BYTES, size - position), position)
    if (count === 0) throw changed(copy, entry)
    const bytes = copy.buffer.subarray(0, count)
    for (const run of runsOf(bytes, position)) if (!run.isZero) writeFully(target, bytes.subarray(run.start, run.end), position + run.start)
    position += count
    copy.check(copy.bytes += count)
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written, bytes.length - written, position + written)
}

function changed(copy: Copy, entry: number): NarvikError {
  return new NarvikError('changed-while-reading', `Cannot copy ${copy.source.show(entry)}: found that it was written to, needed it unchanged`)
}
