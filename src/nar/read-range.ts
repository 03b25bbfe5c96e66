import { closeSync, fstatSync, openSync, read, readSync, type Stats } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { NarvikError } from '../errors.ts'
import { FILE_BUFFER_BYTES, SMALL_FILE_BYTES } from '../limits.ts'
import { changeTime } from './change-time.ts'
import { changedError, OPEN_FILE, TreeCursor } from './directory.ts'
import type { Layout, Segment } from './layout.ts'

export interface ReadOptions {
  readonly signal?: AbortSignal
  /** The newest change time that a file may have, in microseconds; a newer one is as good as another size. */
  readonly unchangedSince?: number
}

/**
 * The bytes of a range of the NAR, from the tree at `root` that the layout is of. Each buffer is newly allocated and of
 * FILE_BUFFER_BYTES at most, so the taker may keep it. Framing comes from the layout; a file is read as far as the range needs.
 * @throws NarvikError `changed-while-reading` where a file is gone, replaced, changed, or not of its size; never follows a symlink.
 */
export async function* readRange(root: string, layout: Layout, offset: number, length: number, { signal, unchangedSince = Infinity }: ReadOptions = {}): AsyncGenerator<Buffer, void, undefined> {
  layout.checkRange(offset, length)
  const reader = new TreeReader(root, layout, unchangedSince)
  try {
    let out = Buffer.allocUnsafeSlow(Math.min(length, FILE_BUFFER_BYTES))
    let filled = 0
    let left = length
    for (const segment of layout.segments(offset, length)) {
      const segmentLength = segment.kind === 'frame' ? segment.bytes.length : segment.length
      for (let done = 0; done < segmentLength;) {
        signal?.throwIfAborted()
        const count = Math.min(segmentLength - done, out.length - filled)
        await reader.fill(segment, done, out.subarray(filled, filled + count))
        done += count
        filled += count
        if (filled < out.length) continue
        left -= filled
        yield out
        // Small files are read without waiting, so that here is where others get their turn.
        await setImmediate()
        out = Buffer.allocUnsafeSlow(Math.min(left, FILE_BUFFER_BYTES))
        filled = 0
      }
    }
  } finally {
    reader.close()
  }
}

/** Reads segments, in any order; the file that was read last stays open. What is no reading is done at once: handing it to another thread costs more. */
class TreeReader {
  readonly #layout: Layout
  readonly #cursor: TreeCursor
  readonly #unchangedSince: number
  #file: { entry: number, fd: number } | undefined

  constructor(root: string, layout: Layout, unchangedSince: number) {
    this.#layout = layout
    this.#unchangedSince = unchangedSince
    this.#cursor = new TreeCursor(root, layout.listing)
  }

  /** Fills `out` with the bytes from `start` of the segment on. */
  async fill(segment: Segment, start: number, out: Buffer): Promise<void> {
    if (segment.kind === 'frame') {
      segment.bytes.copy(out, 0, start)
      return
    }
    try {
      if (this.#layout.listing.size(segment.entry) <= SMALL_FILE_BYTES) {
        this.#fillSmall(segment.entry, segment.fileOffset + start, out)
        return
      }
      await this.#read(this.#open(segment.entry), segment.entry, segment.fileOffset + start, out)
    } catch (error) {
      throw changedError(error, `read ${this.#cursor.show(segment.entry)}`)
    }
  }

  close(): void {
    this.#closeFile()
    this.#cursor.close()
  }

  #fillSmall(entry: number, offset: number, out: Buffer): void {
    const fd = openSync(this.#cursor.path(entry), OPEN_FILE)
    try {
      this.#checkFile(entry, fstatSync(fd))
      for (let filled = 0; filled < out.length;) {
        const count = readSync(fd, out, filled, out.length - filled, offset + filled)
        if (count === 0) throw this.#short(entry, offset + filled)
        filled += count
      }
    } finally {
      closeSync(fd)
    }
  }

  #open(entry: number): number {
    if (this.#file?.entry === entry) return this.#file.fd
    this.#closeFile()
    const fd = openSync(this.#cursor.path(entry), OPEN_FILE)
    this.#file = { entry, fd }
    this.#checkFile(entry, fstatSync(fd))
    return fd
  }

  #closeFile(): void {
    const file = this.#file
    this.#file = undefined
    if (file !== undefined) closeSync(file.fd)
  }

  #checkFile(entry: number, stat: Stats): void {
    const { listing } = this.#layout
    if (changeTime(stat) > this.#unchangedSince) throw this.#changed(entry, `found it changed at ${stat.ctime.toISOString()}, needed it as it was proven`)
    if (stat.isFile() && stat.size === listing.size(entry) && ((stat.mode & 0o100) !== 0) === listing.executable(entry)) return
    const found = `${stat.isFile() ? 'a file' : 'no file'} of ${stat.size} bytes, mode ${(stat.mode & 0o7777).toString(8)}`
    throw this.#changed(entry, `found ${found}, needed one of ${listing.size(entry)} bytes${listing.executable(entry) ? ', executable' : ''}`)
  }

  async #read(fd: number, entry: number, offset: number, out: Buffer): Promise<void> {
    for (let filled = 0; filled < out.length;) {
      const bytesRead = await readSome(fd, out.subarray(filled), offset + filled)
      if (bytesRead === 0) throw this.#short(entry, offset + filled)
      filled += bytesRead
    }
    this.#checkEnd(fd, entry, offset, out.length)
  }

  /** A file that took more than one read must still be of its size after the last. */
  #checkEnd(fd: number, entry: number, offset: number, length: number): void {
    const size = this.#layout.listing.size(entry)
    if (offset === 0 || offset + length < size) return
    const found = fstatSync(fd).size
    if (found !== size) throw this.#changed(entry, `found a file of ${found} bytes, needed ${size}`)
  }

  #short(entry: number, at: number): NarvikError {
    return this.#changed(entry, `found its end at byte ${at}, needed ${this.#layout.listing.size(entry)} bytes`)
  }

  #changed(entry: number, problem: string): NarvikError {
    return new NarvikError('changed-while-reading', `Cannot read ${this.#cursor.show(entry)}: ${problem}`)
  }
}

function readSome(fd: number, out: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, out, 0, out.length, position, (error, bytesRead) => {
      if (error === null) resolve(bytesRead)
      else reject(error)
    })
  })
}
