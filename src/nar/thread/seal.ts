import { closeSync, fchmodSync, fstatSync, futimesSync, lstatSync, lutimesSync, openSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { NarvikError } from '../../errors.ts'
import type { Listing } from '../../image/listing.ts'
import { checkProc, OPEN_DIRECTORY, OPEN_FILE, pathIn, treeError } from '../directory.ts'
import type { FileStamps } from '../file-stamps.ts'
import { Flusher } from '../flusher.ts'

/** How the files of a listing were when they were written last. */
export interface Stamped {
  readonly listing: Listing
  readonly stamps: FileStamps
}

/**
 * Gives every entry of the tree at `root` the mode and time that it has in a Nix store, and makes the tree durable. Follows no symlink.
 * The root itself, where it is a directory, stays writable: a directory can only be moved by who may write to it. Says whether each file
 * was as `stamped` has it, when that is given, just before it was touched.
 */
export async function sealNow(root: string, stamped: Stamped | undefined, check: () => void): Promise<boolean> {
  checkProc()
  const top = resolve(root)
  const seal: Seal = { check, flusher: new Flusher(), stamped, isAsStamped: stamped !== undefined }
  try {
    await sealAt(seal, top, 0, 0o755)
  } catch (error) {
    await seal.flusher.finish().catch(() => undefined)
    throw treeError(error, `seal ${top}`)
  }
  await seal.flusher.finish().catch((error: unknown) => { throw treeError(error, `make ${top} durable`) })
  return seal.isAsStamped
}

interface Seal {
  readonly check: () => void
  readonly flusher: Flusher
  readonly stamped: Stamped | undefined
  isAsStamped: boolean
}

/** One second after the beginning of time, as Nix sets it. */
const SEALED_TIME = 1

/** `entry` is that of the listing; undefined for what it doesn't have. */
async function sealAt(seal: Seal, path: string | Buffer, entry: number | undefined, directoryMode: number): Promise<void> {
  seal.check()
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) lutimesSync(path, SEALED_TIME, SEALED_TIME)
  else if (stat.isDirectory()) await sealDirectory(seal, path, entry, directoryMode)
  else if (stat.isFile()) await sealFile(seal, path, entry)
  else throw new NarvikError('unsupported-file', 'Cannot seal a tree: found a fifo, socket or device, needed only files, directories and symlinks')
}

async function sealDirectory(seal: Seal, path: string | Buffer, entry: number | undefined, mode: number): Promise<void> {
  const directory = openSync(path, OPEN_DIRECTORY)
  try {
    const children = childrenOf(seal, entry)
    for (const name of readdirSync(`/proc/self/fd/${directory}`, { encoding: 'latin1' })) {
      await sealAt(seal, pathIn(directory, Buffer.from(name, 'latin1')), children.get(name), 0o555)
    }
  } catch (error) {
    closeSync(directory)
    throw error
  }
  await finish(seal, directory, mode)
}

function childrenOf({ stamped }: Seal, directory: number | undefined): Map<string, number> {
  const children = new Map<string, number>()
  if (stamped === undefined || directory === undefined) return children
  const { listing } = stamped
  for (let child = directory + 1; child < listing.end(directory); child = listing.end(child)) children.set(Buffer.from(listing.name(child)).toString('latin1'), child)
  return children
}

async function sealFile(seal: Seal, path: string | Buffer, entry: number | undefined): Promise<void> {
  const fd = openSync(path, OPEN_FILE)
  const stat = fstatSync(fd)
  seal.isAsStamped &&= entry !== undefined && seal.stamped?.stamps.has(entry, stat) === true
  await finish(seal, fd, (stat.mode & 0o100) === 0 ? 0o444 : 0o555)
}

async function finish(seal: Seal, fd: number, mode: number): Promise<void> {
  try {
    fchmodSync(fd, mode)
    futimesSync(fd, SEALED_TIME, SEALED_TIME)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  await seal.flusher.add(fd)
}
