import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { kindOf } from './durable.ts'

/** A directory that is moved into another one must be writable, because its entry `..` changes. */
export async function openRoot(path: string): Promise<void> {
  await changeRootMode(path, mode => mode | 0o700)
}

/** Nobody may change a published directory. */
export async function sealRoot(path: string): Promise<void> {
  await changeRootMode(path, () => 0o555)
}

async function changeRootMode(path: string, change: (mode: number) => number): Promise<void> {
  if (await kindOf(path) !== 'directory') return
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    const { mode } = await handle.stat()
    const [present, wanted] = [mode & 0o777, change(mode & 0o777)]
    if (present === wanted) return
    await handle.chmod(wanted)
    await handle.sync()
  } finally {
    await handle.close()
  }
}
