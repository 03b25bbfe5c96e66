import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, read } from 'node:fs'
import { Worker } from 'node:worker_threads'
import type { Listing } from '../../image/listing.ts'
import { changedError, OPEN_FILE } from '../directory.ts'
import { MAX_FRAME_BYTES, writeHead, writeTail } from '../framing.ts'
import { BATCH_BYTES, type Batches, batchesOf, BatchFiller, changed, isLargeBatch } from './batches.ts'
import { BatchRing, createRing } from './batch-ring.ts'
import type { HelperJob } from './helper.ts'

/**
 * The SHA-256 of the NAR of the tree at `root`, of which `listing` has just been made. For a worker thread. The parts of a large file are read
 * ahead by Node's threads while this one hashes; small files are read without waiting turns, by this thread and, where they are many, by a second one.
 * `check` is called now and then with the bytes hashed so far, and may throw to end it.
 * @throws NarvikError `changed-while-reading` where a file is gone, replaced or not of its size.
 */
export async function hashContents(root: string, listing: Listing, check: (bytes: number) => void): Promise<Uint8Array> {
  const batches = batchesOf(listing)
  const filler = new BatchFiller(root, listing, batches)
  const shared = createRing()
  const ring = new BatchRing(shared, filler, listing, batches)
  const helped = batches.areMany ? help({ root, columns: listing.columns, batches, ring: shared }) : undefined
  try {
    return await hashBatches(ring, filler, listing, batches, check)
  } finally {
    ring.stop()
    filler.close()
    await helped
  }
}

/** Buffers of a large file that are being read while one is hashed. */
const READ_AHEAD = 3

const helpers: Worker[] = []

/** Resolves when the second thread has let go of what it shares with this one. Without its help it only takes longer. */
async function help(job: HelperJob): Promise<void> {
  const helper = helpers.pop() ?? new Worker(new URL('./helper.ts', import.meta.url), { execArgv: [] })
  const isAlive = await new Promise<boolean>(resolve => {
    const onMessage = (): void => { settle(true) }
    const onEnd = (): void => { settle(false) }
    const settle = (outcome: boolean): void => {
      helper.off('message', onMessage).off('error', onEnd).off('exit', onEnd)
      resolve(outcome)
    }
    helper.on('message', onMessage).on('error', onEnd).on('exit', onEnd)
    helper.postMessage(job)
  })
  if (isAlive) helpers.push(helper)
}

async function hashBatches(ring: BatchRing, filler: BatchFiller, listing: Listing, batches: Batches, check: (bytes: number) => void): Promise<Uint8Array> {
  const hash = createHash('sha256')
  let hashed = 0
  const update = (bytes: Buffer): void => {
    hash.update(bytes)
    hashed += bytes.length
    check(hashed)
  }
  for (let batch = 0; batch < ring.count; batch++) {
    update(ring.take(batch, () => { check(hashed) }))
    ring.release(batch)
    if (isLargeBatch(listing, batches, batch)) await hashLargeFile(filler, listing, batches.firsts[batch] ?? 0, update)
  }
  return Uint8Array.from(hash.digest())
}

async function hashLargeFile(filler: BatchFiller, listing: Listing, entry: number, update: (bytes: Buffer) => void): Promise<void> {
  const size = listing.size(entry)
  const frame = Buffer.alloc(2 * MAX_FRAME_BYTES)
  const head = writeHead(listing, entry, frame, 0)
  const end = writeTail(listing, entry, frame, head)
  update(frame.subarray(0, head))
  const path = filler.paths.show(entry)
  let fd: number | undefined
  try {
    fd = openSync(filler.paths.path(entry), OPEN_FILE)
    const before = fstatSync(fd)
    if (!before.isFile() || before.size !== size) throw changed(path, `found ${before.size} bytes, needed ${size}`)
    await readAhead(fd, path, size, update)
    const after = fstatSync(fd)
    if (after.size !== size || after.mtimeMs !== before.mtimeMs || after.ctimeMs !== before.ctimeMs) throw changed(path, 'found that it was written to, needed it unchanged')
  } catch (error) {
    throw changedError(error, `hash ${path}`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
  update(frame.subarray(head, end))
}

/** Kept for the next file: the first use of memory is slow. */
const aheadBuffers: Buffer[] = []

async function readAhead(fd: number, path: string, size: number, update: (bytes: Buffer) => void): Promise<void> {
  while (aheadBuffers.length < READ_AHEAD) aheadBuffers.push(Buffer.allocUnsafeSlow(BATCH_BYTES))
  const free = [...aheadBuffers]
  const reads: Promise<Buffer>[] = []
  let asked = 0
  try {
    for (let hashed = 0; hashed < size;) {
      while (free.length > 0 && asked < size) {
        const part = free.pop()?.subarray(0, Math.min(BATCH_BYTES, size - asked)) ?? Buffer.alloc(0)
        reads.push(readFully(fd, path, part, asked))
        asked += part.length
      }
      const bytes = await reads.shift() ?? Buffer.alloc(0)
      update(bytes)
      hashed += bytes.length
      free.push(Buffer.from(bytes.buffer))
    }
  } finally {
    // The file may be closed, and its buffers used again, only after the last read.
    await Promise.allSettled(reads)
  }
}

function readFully(fd: number, path: string, buffer: Buffer, position: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const readMore = (filled: number): void => {
      read(fd, buffer, filled, buffer.length - filled, position + filled, (error, count) => {
        if (error !== null) reject(error)
        else if (count === 0) reject(changed(path, `found its end at byte ${position + filled}, needed more`))
        else if (filled + count < buffer.length) readMore(filled + count)
        else resolve(buffer)
      })
    }
    readMore(0)
  })
}
