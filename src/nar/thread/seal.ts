import { closeSync, fchmodSync, futimesSync, lstatSync, lutimesSync, openSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { NarvikError } from '../../errors.ts'
import { checkProc, OPEN_DIRECTORY, OPEN_FILE, pathIn, treeError } from '../directory.ts'
import { Flusher } from '../flusher.ts'

/**
 * Gives every entry of the tree at `root` the mode and time that it has in a Nix store, and makes the tree durable. Follows no symlink.
 * The root itself, where it is a directory, stays writable: a directory can only be moved by who may write to it.
 */
export async function sealNow(root: string, check: () => void): Promise<void> {
  checkProc()
  const top = resolve(root)
  const flusher = new Flusher()
  try {
    await sealAt({ check, flusher }, top, 0o755)
  } catch (error) {
    await flusher.finish().catch(() => undefined)
    throw treeError(error, `seal ${top}`)
  }
  await flusher.finish().catch((error: unknown) => { throw treeError(error, `make ${top} durable`) })
}

interface Seal {
  readonly check: () => void
  readonly flusher: Flusher
}

/** One second after the beginning of time, as Nix sets it. */
const SEALED_TIME = 1

async function sealAt(seal: Seal, path: string | Buffer, directoryMode: number): Promise<void> {
  seal.check()
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) lutimesSync(path, SEALED_TIME, SEALED_TIME)
  else if (stat.isDirectory()) await sealDirectory(seal, path, directoryMode)
  else if (stat.isFile()) await finish(seal, openSync(path, OPEN_FILE), (stat.mode & 0o100) === 0 ? 0o444 : 0o555)
  else throw new NarvikError('unsupported-file', 'Cannot seal a tree: found a fifo, socket or device, needed only files, directories and symlinks')
}

async function sealDirectory(seal: Seal, path: string | Buffer, mode: number): Promise<void> {
  const directory = openSync(path, OPEN_DIRECTORY)
  try {
    for (const name of readdirSync(`/proc/self/fd/${directory}`, { encoding: 'latin1' })) {
      await sealAt(seal, pathIn(directory, Buffer.from(name, 'latin1')), 0o555)
    }
  } catch (error) {
    closeSync(directory)
    throw error
  }
  await finish(seal, directory, mode)
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
