import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { hashContents } from '../../../src/nar/thread/hash-contents.ts'
import { walkTree } from '../../../src/nar/thread/walk.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

type Read = typeof import('node:fs').read

/** The read of the first piece, which waits until a later one is over, of a file that is cut off meanwhile. */
const held = vi.hoisted(() => ({ path: '', first: undefined as (() => void) | undefined }))

vi.mock('node:fs', async importOriginal => {
  const fs = await importOriginal<typeof import('node:fs')>()
  const read = (fd: number, buffer: Buffer, offset: number, length: number, position: number, callback: (error: Error | null, count: number, buffer: Buffer) => void): void => {
    if (position === 0) {
      fs.truncateSync(held.path, 1024 * 1024)
      held.first = () => { fs.read(fd, buffer, offset, length, position, callback) }
      return
    }
    fs.read(fd, buffer, offset, length, position, (error, count) => {
      callback(error, count, buffer)
      // After Node has had the time to miss whoever should have heard of a failure.
      setImmediate(() => setImmediate(() => { held.first?.() }))
    })
  }
  return { ...fs, read: read as Read }
})

it('a part of a file that can not be read fails the hash in its turn, and ends nothing else before', async () => {
  const missed = vi.fn()
  process.on('unhandledRejection', missed)
  try {
    held.path = join(await temporaryDirectory(), 'disk')
    writeFileSync(held.path, Buffer.alloc(5 * 1024 * 1024, 1))
    const listing = walkTree(held.path, () => undefined)
    await expectFailure(hashContents(held.path, listing, { check: () => undefined }), 'changed-while-reading', /found its end at byte 1048576/)
    expect(missed).not.toHaveBeenCalled()
  } finally {
    process.off('unhandledRejection', missed)
  }
})
