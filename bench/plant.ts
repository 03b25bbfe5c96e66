import { randomFillSync } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const BLOCK = 1024 * 1024

/** Writes a file of random bytes: nothing in it is a hole, and nothing can be compressed. */
export function plantDisk(path: string, size: number): void {
  const bytes = Buffer.allocUnsafeSlow(BLOCK)
  const file = openSync(path, 'wx')
  for (let written = 0; written < size; written += BLOCK) writeSync(file, randomFillSync(bytes), 0, Math.min(BLOCK, size - written))
  closeSync(file)
}

/** Directories of a hundred files of 0 to 8 KiB. */
export function plantFiles(path: string, count: number): void {
  mkdirSync(path)
  for (let index = 0; index < count; index++) {
    const directory = join(path, `directory-${Math.floor(index / 100)}`)
    if (index % 100 === 0) mkdirSync(directory)
    writeFileSync(join(directory, `file-${index}`), Buffer.alloc(index * 7919 % 8192, index))
  }
}
