import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import type { ChunkRun } from '../image/chunk-set.ts'
import { isAbsence } from './durable.ts'

/** Bytes of one line: first chunk and count, four bytes each, least first. */
const ENTRY_BYTES = 8

/**
 * Which chunks of an image came since its progress was written. Nothing here is made durable: a kill leaves it whole, a power cut
 * may leave claims of chunks that never reached the disk. So whoever reads it checks the chunks before believing it.
 */
export class Arrivals {
  readonly #file: string
  #fd: number
  #entries: Buffer[] = []

  private constructor(file: string, fd: number) {
    this.#file = file
    this.#fd = fd
  }

  /** Opens the record, with what an earlier run has left in it. */
  static open(file: string): Arrivals {
    return new Arrivals(file, openSync(file, OPEN_TO_APPEND, 0o600))
  }

  /** What the record says of an image of so many chunks; nothing where there is none. */
  static read(file: string, chunks: number): ChunkRun[] {
    try {
      return decodeArrivals(readBounded(file, chunks * ENTRY_BYTES), chunks)
    } catch (error) {
      if (isAbsence(error)) return []
      throw error
    }
  }

  /** Takes a run down, in one short write. */
  add({ first, count }: ChunkRun): void {
    const entry = Buffer.alloc(ENTRY_BYTES)
    entry.writeUInt32LE(first, 0)
    entry.writeUInt32LE(count, 4)
    this.#entries.push(entry)
    writeSync(this.#fd, entry)
  }

  /** A point in the record. What came before it can be forgotten once the progress that has it is durable. */
  mark(): number {
    return this.#entries.length
  }

  async forget(mark: number): Promise<void> {
    const kept = this.#entries.slice(mark)
    const temporary = `${this.#file}.new`
    await writeFile(temporary, Buffer.concat(kept), { mode: 0o600 })
    // What came while that was written goes after it, before the record is replaced.
    const fd = openSync(temporary, OPEN_TO_APPEND)
    for (const entry of this.#entries.slice(mark + kept.length)) writeSync(fd, entry)
    const later = this.#entries.length
    await rename(temporary, this.#file)
    for (const entry of this.#entries.slice(later)) writeSync(fd, entry)
    this.#entries = this.#entries.slice(mark)
    closeSync(this.#fd)
    this.#fd = fd
  }

  close(): void {
    closeSync(this.#fd)
  }
}

const OPEN_TO_APPEND = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND

/** The runs in a record, in order and each chunk once: in a file that is damaged they may be of any length, and overlap any number of times. */
export function decodeArrivals(bytes: Buffer, chunks: number): ChunkRun[] {
  const entries = Array.from({ length: Math.floor(bytes.length / ENTRY_BYTES) }, (_, index) => ({ first: bytes.readUInt32LE(index * ENTRY_BYTES), count: bytes.readUInt32LE(index * ENTRY_BYTES + 4) }))
  const runs: ChunkRun[] = []
  let next = 0
  for (const { first, count } of entries.sort((a, b) => a.first - b.first)) {
    const from = Math.max(first, next)
    const end = Math.min(first + count, chunks)
    if (end <= from) continue
    runs.push({ first: from, count: end - from })
    next = end
  }
  return runs
}

/** The start of a file. */
function readBounded(file: string, most: number): Buffer {
  const fd = openSync(file, 'r')
  try {
    const bytes = Buffer.alloc(most)
    let length = 0
    for (let read = -1; read !== 0 && length < most; length += read) read = readSync(fd, bytes, length, most - length, length)
    return bytes.subarray(0, length)
  } finally {
    closeSync(fd)
  }
}
