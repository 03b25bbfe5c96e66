import { closeSync, fchmodSync, lstatSync, openSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { OPEN_DIRECTORY, OPEN_FILE, pathIn, treeError } from '../directory.ts'

/** Lets everybody read the tree at `root`, whose owner only could; each directory after what is in it. Follows no symlink. */
export function openNow(root: string, check: () => void): void {
  const top = resolve(root)
  try {
    openAt(top, check)
  } catch (error) {
    throw treeError(error, `set the modes of ${top}`)
  }
}

function openAt(path: string | Buffer, check: () => void): void {
  check()
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) return
  const fd = openSync(path, stat.isDirectory() ? OPEN_DIRECTORY : OPEN_FILE)
  try {
    if (stat.isDirectory()) {
      for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' })) openAt(pathIn(fd, Buffer.from(name, 'latin1')), check)
    }
    fchmodSync(fd, stat.isDirectory() || (stat.mode & 0o100) !== 0 ? 0o755 : 0o644)
  } finally {
    closeSync(fd)
  }
}
