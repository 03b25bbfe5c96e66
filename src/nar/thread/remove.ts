import { chmodSync, closeSync, constants, lstatSync, openSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { resolve } from 'node:path'
import { systemCode } from '../../errors.ts'
import { checkProc, OPEN_DIRECTORY, pathIn, treeError } from '../directory.ts'

/** Removes the tree at `root`, also a sealed one; nothing there is well. Follows no symlink and waits for nothing. */
export function removeNow(root: string, check: () => void): void {
  checkProc()
  const top = resolve(root)
  try {
    removeAt(top, check)
  } catch (error) {
    throw treeError(error, `remove ${top}`)
  }
}

/** Removes what is at `path`; system errors pass. */
export function removeAt(path: string | Buffer, check: () => void): void {
  check()
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return
  if (!stat.isDirectory()) {
    unlinkSync(path)
    return
  }
  const directory = openForRemoval(path, stat.mode)
  try {
    for (const name of readdirSync(`/proc/self/fd/${directory}`, { encoding: 'latin1' })) removeAt(pathIn(directory, Buffer.from(name, 'latin1')), check)
  } finally {
    closeSync(directory)
  }
  rmdirSync(path)
}

/** Linux's own flag: a descriptor that says where a directory is, of which nothing can be read. */
const O_PATH = 0o10000000

function openForRemoval(path: string | Buffer, mode: number): number {
  if ((mode & 0o700) !== 0o700) makeWritable(path)
  return openSync(path, OPEN_DIRECTORY)
}

function makeWritable(path: string | Buffer): void {
  const place = openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    chmodSync(`/proc/self/fd/${place}`, 0o700)
  } catch (error) {
    // Whoever is not the owner may still be allowed to remove what is in it.
    if (systemCode(error) !== 'EPERM') throw error
  } finally {
    closeSync(place)
  }
}
