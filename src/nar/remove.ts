import { chmod, lstat, readdir, rmdir, unlink } from 'node:fs/promises'
import { fromSystemError, systemCode } from '../errors.ts'

/** Removes a tree, also one whose directories are read-only; one that is not there is no error. */
export async function removeTree(path: string): Promise<void> {
  try {
    await removeEntry(Buffer.from(path))
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw fromSystemError(error, `remove ${path}`)
  }
}

async function removeEntry(path: Buffer): Promise<void> {
  if (!(await lstat(path)).isDirectory()) {
    await unlink(path)
    return
  }
  await chmod(path, 0o700)
  for (const name of await readdir(path, { encoding: 'buffer' })) {
    await removeEntry(Buffer.concat([path, Buffer.from('/'), name]))
  }
  await rmdir(path)
}
