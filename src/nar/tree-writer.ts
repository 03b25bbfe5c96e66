import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { NarvikError } from '../errors.ts'
import { SMALL_FILE_BYTES } from '../limits.ts'
import { OPEN_FILE, TreeCursor, treeError } from './directory.ts'
import { FileStamps } from './file-stamps.ts'
import { Flusher } from './flusher.ts'
import type { Layout } from './layout.ts'
import { isZero, runsOf } from './sparse.ts'
import { runTask } from './thread/pool.ts'

/**
 * Writes ranges of a NAR, in any order, into the tree that it is of. The framing is in the layout already, so that of the ranges is only compared.
 * Calls may overlap; they are done one after another.
 */
export class TreeWriter {
  readonly root: string
  readonly layout: Layout
  readonly #cursor: TreeCursor
  /** For what goes on beside the writes: a path is good until the cursor moves. */
  readonly #flushCursor: TreeCursor
  readonly #signal: AbortSignal | undefined
  /** Files that stay open for the next range, the one used last at the end. */
  readonly #open = new Map<number, FileHandle>()
  /** Files that were written to since the last `sync`. */
  #dirty = new Set<number>()
  #queue: Promise<unknown> = Promise.resolve()
  /** What `sync` has under way; none of these rejects. */
  readonly #flushing = new Set<Promise<unknown>>()
  #closed = false
  readonly #stamps: FileStamps
  #isDisturbed = false

  private constructor(root: string, layout: Layout, stamps: FileStamps, signal: AbortSignal | undefined) {
    this.root = root
    this.layout = layout
    this.#stamps = stamps
    this.#cursor = new TreeCursor(root, layout.listing)
    this.#flushCursor = new TreeCursor(root, layout.listing)
    this.#signal = signal
  }

  /**
   * Makes the whole tree but the contents of its files, durably, or takes up one that is there: what is in its files stays, whatever is
   * not of the layout is removed.
   * @throws NarvikError `disk-full`, `io-error`; the reason of `signal`, here and in each later call, when it is aborted.
   */
  static async open(root: string, layout: Layout, { signal }: { signal?: AbortSignal } = {}): Promise<TreeWriter> {
    const { stamps } = await runTask({ task: 'skeleton', root, columns: layout.listing.columns }, { signal })
    if (stamps === undefined) throw new NarvikError('internal', `Cannot write to ${root}: found no stamps in the answer, needed them`)
    return new TreeWriter(root, layout, new FileStamps(stamps), signal)
  }

  /** How each file was when it was written to last; undefined where somebody else has changed one between two writes. */
  get stamps(): FileStamps | undefined {
    return this.#isDisturbed ? undefined : this.#stamps
  }

  /**
   * Writes the bytes of the NAR from `offset` on; the caller may use the buffer again when it resolves. Blocks of zeros become holes.
   * @throws NarvikError `invalid-nar` with the offset where framing differs from the layout's; what comes before that is written.
   */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      let at = 0
      for (const segment of this.layout.segments(offset, bytes.length)) {
        this.#signal?.throwIfAborted()
        if (segment.kind === 'frame') {
          checkFrame(segment.bytes, bytes.subarray(at, at + segment.bytes.length), offset + at)
          at += segment.bytes.length
        } else {
          await this.#writeContents(segment.entry, segment.fileOffset, bytes.subarray(at, at + segment.length))
          at += segment.length
        }
      }
    })
  }

  /**
   * As `write` of zeros. Where nothing has been written to a file since it was made, nothing is read or written.
   * @throws NarvikError `invalid-nar` where framing there is not zero.
   */
  async writeZeros(offset: number, length: number): Promise<void> {
    return this.#inTurn(async () => {
      for (const segment of this.layout.segments(offset, length)) {
        this.#signal?.throwIfAborted()
        if (segment.kind === 'frame') checkFrame(segment.bytes, Buffer.alloc(segment.bytes.length), offset)
        else if (!this.#stamps.isHole(segment.entry)) await this.#writeContents(segment.entry, segment.fileOffset, Buffer.alloc(segment.length))
      }
    })
  }

  /** When it resolves, everything whose `write` had resolved before the call is on the disk. Later writes go on meanwhile. */
  async sync(): Promise<void> {
    const turn = this.#inTurn(() => {
      const dirty = [...this.#dirty].sort((a, b) => a - b)
      this.#dirty = new Set()
      return Promise.resolve(dirty)
    })
    const flushing = turn.then(dirty => this.#flush(dirty))
    const settled = flushing.catch(() => undefined)
    this.#flushing.add(settled)
    void settled.then(() => this.#flushing.delete(settled))
    await flushing
  }

  /** Waits for what is under way and lets go of the files; nothing more can be written. Does not make anything durable. */
  async close(): Promise<void> {
    if (this.#closed) return
    await this.#inTurn(async () => {
      this.#closed = true
      await Promise.all(this.#flushing)
      const handles = [...this.#open.values()]
      this.#open.clear()
      this.#cursor.close()
      this.#flushCursor.close()
      for (const handle of handles) await handle.close()
    }).catch((error: unknown) => { throw treeError(error, `close the files of ${this.#cursor.root}`) })
  }

  async #flush(dirty: readonly number[]): Promise<void> {
    const flusher = new Flusher()
    try {
      for (const entry of dirty) await flusher.add(openSync(this.#flushCursor.path(entry), OPEN_FILE))
      await flusher.finish()
    } catch (error) {
      await flusher.finish().catch(() => undefined)
      // What may not have reached the disk is tried again by the next call.
      for (const entry of dirty) this.#dirty.add(entry)
      throw treeError(error, `make the files of ${this.#cursor.root} durable`)
    }
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(() => {
      if (this.#closed) throw new NarvikError('internal', `Cannot write to ${this.#cursor.root}: found its writer closed, needed an open one`)
      return action()
    })
    this.#queue = turn.catch(() => undefined)
    return turn
  }

  async #writeContents(entry: number, position: number, bytes: Uint8Array): Promise<void> {
    try {
      this.#dirty.add(entry)
      if (this.layout.listing.size(entry) <= SMALL_FILE_BYTES) {
        this.#writeSmall(entry, bytes, position)
        return
      }
      const handle = await this.#file(entry)
      this.#checkStamp(entry, handle.fd)
      for (const run of runsOf(bytes, position)) {
        const part = bytes.subarray(run.start, run.end)
        if (!run.isZero || !await isHole(handle, position + run.start, part.length)) await writeFully(handle, part, position + run.start)
      }
      this.#stamps.set(entry, fstatSync(handle.fd))
    } catch (error) {
      throw treeError(error, `write ${this.#cursor.show(entry)}`)
    }
  }

  #writeSmall(entry: number, bytes: Uint8Array, position: number): void {
    const fd = openSync(this.#cursor.path(entry), OPEN_TO_WRITE)
    try {
      this.#checkStamp(entry, fd)
      for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written, bytes.length - written, position + written)
      this.#stamps.set(entry, fstatSync(fd))
    } finally {
      closeSync(fd)
    }
  }

  #checkStamp(entry: number, fd: number): void {
    this.#isDisturbed ||= !this.#stamps.has(entry, fstatSync(fd))
  }

  async #file(entry: number): Promise<FileHandle> {
    const kept = this.#open.get(entry)
    this.#open.delete(entry)
    const handle = kept ?? await open(this.#cursor.path(entry), OPEN_TO_WRITE)
    this.#open.set(entry, handle)
    const oldest = this.#open.size > OPEN_FILES ? this.#open.entries().next().value : undefined
    if (oldest === undefined) return handle
    this.#open.delete(oldest[0])
    await oldest[1].close()
    return handle
  }
}

const OPEN_TO_WRITE = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK
/** Files open at once: one suffices for a NAR in order, a few for chunks from many peers. */
const OPEN_FILES = 16

function checkFrame(expected: Buffer, found: Uint8Array, offset: number): void {
  if (expected.equals(found)) return
  const at = expected.findIndex((byte, index) => byte !== found[index])
  throw new NarvikError('invalid-nar', `Cannot take bytes of a NAR: at byte ${offset + at}, found ${String(found[at])}, needed ${String(expected[at])} as the listing says`)
}

/** Whether the file has only zeros there already; it may not, where a peer that lied has been before. */
async function isHole(handle: FileHandle, position: number, length: number): Promise<boolean> {
  const buffer = Buffer.allocUnsafe(Math.min(length, 256 * 1024))
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, length - done), position + done)
    if (bytesRead === 0 || !isZero(buffer.subarray(0, bytesRead))) return false
    done += bytesRead
  }
  return true
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    written += (await handle.write(bytes, written, bytes.length - written, position + written)).bytesWritten
  }
}
