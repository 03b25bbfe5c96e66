import { closeSync, constants, fchmodSync, fstatSync, fsyncSync, ftruncateSync, lstatSync, mkdirSync, openSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs'
import { NarvikError, systemCode } from '../../errors.ts'
import type { Listing } from '../../image/listing.ts'
import { OPEN_DIRECTORY, OPEN_FILE, pathIn, TreeCursor, treeError } from '../directory.ts'
import { FileStamps } from '../file-stamps.ts'
import { removeAt } from './remove.ts'

/**
 * Makes every directory, symlink and file of a listing at `root`, the files as holes of their size, makes it durable, and gives the files' stamps. What is there
 * of it already is kept, also the contents of files; whatever else is there is removed, so that afterwards the tree has exactly the listing's shape.
 */
export function makeSkeleton(root: string, listing: Listing, check: () => void): FileStamps {
  const cursor = new TreeCursor(root, listing)
  const stamps = FileStamps.ofNone(listing.count)
  const skeleton: Skeleton = { cursor, listing, check, stamps, fresh: [] }
  try {
    for (let entry = 0; entry < listing.count; entry++) makeEntry(skeleton, entry)
    for (let entry = 0; entry < listing.count; entry++) if (listing.kind(entry) === 'directory') fsyncSync(cursor.enter(entry))
    return stamps
  } finally {
    cursor.close()
  }
}

interface Skeleton {
  readonly cursor: TreeCursor
  readonly listing: Listing
  readonly check: () => void
  readonly stamps: FileStamps
  /** Whether the directory that is open at a depth was made just now, so that there is nothing in it to look at. */
  readonly fresh: boolean[]
}

function makeEntry(skeleton: Skeleton, entry: number): void {
  const { cursor, listing, check } = skeleton
  check()
  try {
    const path = cursor.path(entry)
    const isFresh = entry > 0 && skeleton.fresh[listing.depth(entry) - 1] === true
    if (!isFresh) clearOtherKind(listing, entry, path, check)
    switch (listing.kind(entry)) {
      case 'directory':
        skeleton.fresh[listing.depth(entry)] = makeDirectory(path)
        if (skeleton.fresh[listing.depth(entry)] === false) removeStrangers(cursor.enter(entry), listing, entry, check)
        return
      case 'regular': makeFile(skeleton, entry, path); return
      case 'symlink': makeSymlink(path, listing.target(entry)); return
    }
  } catch (error) {
    throw treeError(error, `make ${cursor.show(entry)}`)
  }
}

/** Removes what is at `path` unless it can be taken up as the entry. */
function clearOtherKind(listing: Listing, entry: number, path: string | Buffer, check: () => void): void {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return
  const kind = listing.kind(entry)
  if (kind === 'directory' && stat.isDirectory()) return
  if (kind === 'regular' && stat.isFile() && stat.nlink === 1) return
  if (kind === 'symlink' && stat.isSymbolicLink() && Buffer.compare(readlinkSync(path, { encoding: 'buffer' }), listing.target(entry)) === 0) return
  removeAt(path, check)
}

/** Whether it was made just now. */
function makeDirectory(path: string | Buffer): boolean {
  try {
    mkdirSync(path, 0o700)
    return true
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
  const fd = openSync(path, OPEN_DIRECTORY)
  try {
    fchmodSync(fd, 0o700)
  } finally {
    closeSync(fd)
  }
  return false
}

function removeStrangers(fd: number, listing: Listing, directory: number, check: () => void): void {
  const wanted = new Set<string>()
  for (let child = directory + 1; child < listing.end(directory); child = listing.end(child)) wanted.add(Buffer.from(listing.name(child)).toString('latin1'))
  for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' })) {
    if (!wanted.has(name)) removeAt(pathIn(fd, Buffer.from(name, 'latin1')), check)
  }
}

function makeFile({ listing, stamps }: Skeleton, entry: number, path: string | Buffer): void {
  const size = listing.size(entry)
  const mode = listing.executable(entry) ? 0o700 : 0o600
  const fd = openFile(path, mode)
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) throw new NarvikError('conflict', 'Cannot take up a file: found something else, needed a regular file')
    if ((stat.mode & 0o7777) !== mode) fchmodSync(fd, mode)
    if (stat.size !== size) ftruncateSync(fd, size)
    if (stat.size === 0) stamps.setHole(entry, fstatSync(fd))
    else stamps.set(entry, fstatSync(fd))
  } finally {
    closeSync(fd)
  }
}

function openFile(path: string | Buffer, mode: number): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK
  try {
    return openSync(path, flags, mode)
  } catch (error) {
    if (systemCode(error) !== 'EACCES') throw error
  }
  // A sealed file: its owner may give himself the right to write.
  const fd = openSync(path, OPEN_FILE)
  try {
    fchmodSync(fd, mode)
  } finally {
    closeSync(fd)
  }
  return openSync(path, flags, mode)
}

function makeSymlink(path: string | Buffer, target: Uint8Array): void {
  try {
    symlinkSync(Buffer.from(target), path)
  } catch (error) {
    // One that is there has this target, or it would have been removed.
    if (systemCode(error) !== 'EEXIST') throw error
  }
}
