import { closeSync, fstatSync, openSync, read } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import type { Listing } from '../../image/listing.ts'
import { changedError, OPEN_FILE } from '../directory.ts'
import { MAX_FRAME_BYTES, writeHead, writeTail } from '../framing.ts'
import { narSizeOf } from '../layout.ts'
import { areManyFiles, type Batches, batchesOf, BatchFiller, batchLength, changed, isLargeBatch } from './batches.ts'
import { BatchRing, type BatchSource, createRing, forgetSlots, LoneBatches } from './batch-ring.ts'
import { startHelper } from './helpers.ts'
import { hasReached, type SharedFrontier, waitUntilReached } from './frontier.ts'
import { createNarSink, type NarDigest, type NarSink } from './nar-sink.ts'

/**
 * The SHA-256, and where they are asked for the chunks, of the NAR of the tree at `root`, of which `listing` has just been made. For a worker thread. The
 * parts of a large file are read ahead by Node's threads while this one hashes; small files are read without waiting turns, by this thread and,
 * where they are many, by a second one. `check` is called now and then with the bytes hashed so far, and may throw to end it.
 * @throws NarvikError `changed-while-reading` where a file is gone, replaced or not of its size; `too-large` where the chunks come to more than MAX_NAR_SIZE.
 */
export async function hashContents(root: string, listing: Listing, { check, chunks = false, frontier, isAlone = true }: HashOptions): Promise<NarDigest> {
  const batches = batchesOf(listing)
  const filler = new BatchFiller(root, listing, batches)
  // A second thread would read ahead of the frontier.
  const shared = areManyFiles(listing) && frontier === undefined ? createRing() : undefined
  const source = shared === undefined ? new LoneBatches(filler, listing, batches) : new BatchRing(shared, filler, listing, batches)
  const sink = createNarSink(narSizeOf(listing), { chunks, mayStart: isAlone })
  const help = shared === undefined ? undefined : startHelper({ task: 'read', root, columns: listing.columns, batches, ring: shared })
  try {
    await hashBatches({ source, filler, listing, batches, frontier, output: new Output(sink, check) })
    return await sink.finish()
  } finally {
    source.stop()
    filler.close()
    const [hasLetGo] = await Promise.all([help?.end(), sink.stop()])
    if (hasLetGo === false && shared !== undefined) forgetSlots(shared)
  }
}

export interface HashOptions {
  readonly check: (bytes: number) => void
  readonly chunks?: boolean
  /** How far the bytes of the tree have come, where they are still coming: what lies behind is waited for, and files may be changing there. */
  readonly frontier?: SharedFrontier | undefined
  /** Whether no other tree is handled meanwhile: such a one gets a thread for its chunks. */
  readonly isAlone?: boolean
}

interface Work {
  readonly source: BatchSource
  readonly filler: BatchFiller
  readonly listing: Listing
  readonly batches: Batches
  readonly frontier: SharedFrontier | undefined
  readonly output: Output
}

/** The sink, with the count of what went into it. */
class Output {
  readonly sink: NarSink
  readonly #check: (bytes: number) => void
  #hashed = 0

  constructor(sink: NarSink, check: (bytes: number) => void) {
    this.sink = sink
    this.#check = check
  }

  /** Bytes of the NAR that went into it. */
  get hashed(): number {
    return this.#hashed
  }

  readonly check = (): void => { this.#check(this.#hashed) }

  update(bytes: Buffer): void {
    this.sink.update(bytes, this.check)
    this.#count(bytes)
  }

  giveBack(bytes: Buffer): void {
    this.sink.giveBack(bytes)
    this.#count(bytes)
  }

  #count(bytes: Buffer): void {
    this.#hashed += bytes.length
    this.check()
  }
}

/** Batches after which the event loop has a turn: Node frees what native code has made, such as a chunk's hash, in no other place. */
const BATCHES_A_TURN = 32

async function hashBatches(work: Work): Promise<void> {
  const { source, listing, batches, frontier, output } = work
  for (let batch = 0; batch < source.count; batch++) {
    if (frontier !== undefined) waitUntilReached(frontier, output.hashed + batchLength(listing, batches, batch), output.check)
    output.update(source.take(batch, output.check))
    source.release(batch)
    if (batch % BATCHES_A_TURN === BATCHES_A_TURN - 1) await setImmediate()
    if (isLargeBatch(listing, batches, batch)) await hashLargeFile(work, batches.firsts[batch] ?? 0)
  }
}

async function hashLargeFile({ filler, listing, frontier, output }: Work, entry: number): Promise<void> {
  const size = listing.size(entry)
  const frame = Buffer.alloc(2 * MAX_FRAME_BYTES)
  const head = writeHead(listing, entry, frame, 0)
  const end = writeTail(listing, entry, frame, head)
  output.update(frame.subarray(0, head))
  const path = filler.paths.show(entry)
  let fd: number | undefined
  try {
    fd = openSync(filler.paths.path(entry), OPEN_FILE)
    const before = fstatSync(fd)
    if (!before.isFile() || before.size !== size) throw changed(path, `found ${before.size} bytes, needed ${size}`)
    await readAhead({ fd, path, size }, frontier, output)
    const after = fstatSync(fd)
    const isWritten = frontier === undefined && (after.mtimeMs !== before.mtimeMs || after.ctimeMs !== before.ctimeMs)
    if (after.size !== size || isWritten) throw changed(path, 'found that it was written to, needed it unchanged')
  } catch (error) {
    throw changedError(error, `hash ${path}`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
  output.update(frame.subarray(head, end))
}

interface OpenFile {
  readonly fd: number
  readonly path: string
  readonly size: number
}

async function readAhead({ fd, path, size }: OpenFile, frontier: SharedFrontier | undefined, output: Output): Promise<void> {
  const { sink, hashed: start } = output
  const reads: Promise<Buffer>[] = []
  let asked = 0
  try {
    for (let hashed = 0; hashed < size;) {
      if (reads.length === 0) {
        if (frontier !== undefined) waitUntilReached(frontier, start + asked + Math.min(sink.pieceBytes, size - asked), output.check)
        sink.waitToTake(output.check)
      }
      while (asked < size && (frontier === undefined || hasReached(frontier, start + asked + Math.min(sink.pieceBytes, size - asked)))) {
        const part = sink.take()?.subarray(0, size - asked)
        if (part === undefined) break
        const reading = readFully(fd, path, part, asked)
        // One that fails before its turn is heard of in its turn; until then nobody waits for it, and Node would end the thread.
        reading.catch(() => undefined)
        reads.push(reading)
        asked += part.length
      }
      const bytes = await reads.shift() ?? Buffer.alloc(0)
      output.giveBack(bytes)
      hashed += bytes.length
    }
  } finally {
    // The file may be closed, and its memory used again, only after the last read.
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
