import { constants } from 'node:fs'
import { lstat, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemCode } from '../errors.ts'

/** Makes what was created, renamed or removed in a directory survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Renames, and makes it durable. Within one directory that directory is synced once. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to)
  // The new place first: a crash between the two may leave both names, but never none.
  await syncDirectory(dirname(to))
  if (dirname(from) !== dirname(to)) await syncDirectory(dirname(from))
}

/** Replaces a file: a reader, and a crash, find the old content or the new one, never a part. For its owner only. */
export async function writeFileDurably(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`
  const handle = await open(temporary, 'w', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await renameDurably(temporary, path)
}

/** What kind of thing a path is, itself rather than what it links to; undefined where there is nothing. */
export async function kindOf(path: string): Promise<'directory' | 'regular' | 'symlink' | 'other' | undefined> {
  try {
    const found = await lstat(path)
    if (found.isDirectory()) return 'directory'
    if (found.isFile()) return 'regular'
    return found.isSymbolicLink() ? 'symlink' : 'other'
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw error
  }
}

/** Whether an error says that a path leads to nothing. */
export function isAbsence(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')
}
