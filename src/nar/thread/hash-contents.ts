import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs'
import { NarvikError } from '../../errors.ts'
import type { Listing } from '../../image/listing.ts'
import { changedError, OPEN_FILE, TreeCursor } from '../directory.ts'
import { MAX_FRAME_BYTES, writeHead, writeTail } from '../framing.ts'

/**
 * The SHA-256 of the NAR of the tree at `root`, of which `listing` has just been made. For a worker thread: small files are read without
 * waiting, straight between their framing; the parts of a large one are read ahead by Node's threads while this one hashes.
 * `check` is called now and then with the bytes hashed so far, and may throw to end it.
 * @throws NarvikError `changed-while-reading` where a file is gone, replaced or not of its size.
 */
export async function hashContents(root: string, listing: Listing, check: (bytes: number) => void): Promise<Uint8Array> {
  const tree = new HashedTree(root, listing, check)
  try {
    for (let entry = 0; entry < listing.count; entry++) await tree.take(entry)
    return tree.digest()
  } finally {
    tree.close()
  }
}

/** Bytes of one buffer: what one call hashes. Large, so that a turn of the event loop for each is nothing. */
const STAGE_BYTES = 1024 * 1024
/** Buffers of a large file that are being read while one is hashed. */
const READ_AHEAD = 3
/** Files up to this size are read at once into what is left of the current buffer. */
const SMALL_FILE_BYTES = STAGE_BYTES / 4

class HashedTree {
  readonly #cursor: TreeCursor
  readonly #listing: Listing
  readonly #check: (bytes: number) => void
  readonly #hash = createHash('sha256')
  readonly #stage = Buffer.allocUnsafeSlow(STAGE_BYTES)
  #staged = 0
  #hashed = 0
  #ahead: Buffer[] = []

  constructor(root: string, listing: Listing, check: (bytes: number) => void) {
    this.#cursor = new TreeCursor(root, listing)
    this.#listing = listing
    this.#check = check
  }

  /** Hashes the head, contents and tail of the next entry. Only a large file has to be waited for. */
  async take(entry: number): Promise<void> {
    const size = this.#listing.size(entry)
    this.#makeRoom(2 * MAX_FRAME_BYTES + (size <= SMALL_FILE_BYTES ? size : 0))
    this.#staged = writeHead(this.#listing, entry, this.#stage, this.#staged)
    if (this.#listing.kind(entry) === 'regular') {
      if (size <= SMALL_FILE_BYTES) this.#takeSmall(entry, size)
      else await this.#takeLarge(entry, size)
    }
    this.#staged = writeTail(this.#listing, entry, this.#stage, this.#staged)
  }

  digest(): Uint8Array {
    this.#flush()
    return Uint8Array.from(this.#hash.digest())
  }

  close(): void {
    this.#cursor.close()
  }

  #makeRoom(bytes: number): void {
    if (this.#staged + bytes > STAGE_BYTES) this.#flush()
  }

  #flush(): void {
    this.#update(this.#stage.subarray(0, this.#staged))
    this.#staged = 0
  }

  #update(bytes: Buffer): void {
    this.#hash.update(bytes)
    this.#hashed += bytes.length
    this.#check(this.#hashed)
  }

  /** Reads one byte more than there should be, to see that there isn't one; a short read of a file is its end. */
  #takeSmall(entry: number, size: number): void {
    this.#withFile(entry, fd => {
      const found = readSync(fd, this.#stage, this.#staged, size + 1, null)
      if (found !== size) throw this.#changed(entry, `found ${found > size ? 'more bytes' : `${found} bytes`}, needed ${size}`)
    })
    this.#staged += size
  }

  async #takeLarge(entry: number, size: number): Promise<void> {
    this.#flush()
    const fd = this.#openFile(entry)
    try {
      const before = fstatSync(fd)
      if (!before.isFile() || before.size !== size) throw this.#changed(entry, `found ${before.size} bytes, needed ${size}`)
      await this.#readAhead(fd, entry, size)
      const after = fstatSync(fd)
      if (after.size !== size || after.mtimeMs !== before.mtimeMs || after.ctimeMs !== before.ctimeMs) throw this.#changed(entry, 'found that it was written to, needed it unchanged')
    } catch (error) {
      throw changedError(error, `hash ${this.#cursor.show(entry)}`)
    } finally {
      closeSync(fd)
    }
  }

  async #readAhead(fd: number, entry: number, size: number): Promise<void> {
    while (this.#ahead.length < READ_AHEAD) this.#ahead.push(Buffer.allocUnsafeSlow(STAGE_BYTES))
    const free = [...this.#ahead]
    const reads: Promise<Buffer>[] = []
    let asked = 0
    try {
      for (let hashed = 0; hashed < size;) {
        for (let buffer = free.pop(); buffer !== undefined && asked < size; buffer = free.pop()) {
          const part = buffer.subarray(0, Math.min(STAGE_BYTES, size - asked))
          reads.push(readFully(fd, part, asked))
          asked += part.length
        }
        const bytes = await reads.shift()
        if (bytes === undefined) break
        this.#update(bytes)
        hashed += bytes.length
        free.push(Buffer.from(bytes.buffer))
      }
    } catch (error) {
      if (error instanceof ShortFile) throw this.#changed(entry, `found its end at byte ${error.at}, needed ${size} bytes`)
      throw error
    } finally {
      // The file may be closed only after the last read.
      await Promise.allSettled(reads)
    }
  }

  #withFile(entry: number, action: (fd: number) => void): void {
    const fd = this.#openFile(entry)
    try {
      action(fd)
    } catch (error) {
      throw changedError(error, `hash ${this.#cursor.show(entry)}`)
    } finally {
      closeSync(fd)
    }
  }

  #openFile(entry: number): number {
    try {
      return openSync(this.#cursor.path(entry), OPEN_FILE)
    } catch (error) {
      throw changedError(error, `hash ${this.#cursor.show(entry)}`)
    }
  }

  #changed(entry: number, problem: string): NarvikError {
    return new NarvikError('changed-while-reading', `Cannot hash ${this.#cursor.show(entry)}: ${problem}`)
  }
}

class ShortFile extends Error {
  readonly at: number

  constructor(at: number) {
    super(`short at ${at}`)
    this.at = at
  }
}

function readFully(fd: number, buffer: Buffer, position: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const readMore = (filled: number): void => {
      read(fd, buffer, filled, buffer.length - filled, position + filled, (error, count) => {
        if (error !== null) reject(error)
        else if (count === 0) reject(new ShortFile(position + filled))
        else if (filled + count < buffer.length) readMore(filled + count)
        else resolve(buffer)
      })
    }
    readMore(0)
  })
}
