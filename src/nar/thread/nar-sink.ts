import { createHash } from 'node:crypto'
import { Chunker } from '../../image/chunker.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import { ChunkFeed, hasIdleChunkThread } from './chunk-feed.ts'
import { PIECE_BYTES } from './piece-ring.ts'

/** What a NAR is put through. */
export interface NarDigest {
  /** SHA-256 of the NAR. */
  readonly digest: Uint8Array
  /** Undefined where they were not asked for. */
  readonly chunks: ChunkList | undefined
}

/** Takes the bytes of a NAR in order: some that lie elsewhere, some read into memory of its own. */
export interface NarSink {
  /** Takes bytes that may be overwritten afterwards. `check` is called where it has to wait, and may throw. */
  update(bytes: Buffer, check: () => void): void
  /** Bytes of the memory that is taken at once. */
  readonly pieceBytes: number
  /** Memory of `pieceBytes` for the next bytes; undefined until some that was given out comes back. Several may be out, and come back in order. */
  take(): Buffer | undefined
  /** Until there is memory to take; only where none is out. */
  waitToTake(check: () => void): void
  /** Takes the bytes in what was taken first and has not come back. */
  giveBack(bytes: Buffer): void
  finish(): Promise<NarDigest>
  /** Lets go of what it shares with other threads; to be called last, also after a failure. */
  stop(): Promise<void>
}

/** Chunks are cut in a thread of their own where that saves more time than it takes, and where `mayStart` allows it or there is one. */
export function createNarSink(narSize: number, { chunks, mayStart }: { chunks: boolean, mayStart: boolean }): NarSink {
  if (chunks && narSize > ALONE_BYTES && (mayStart || hasIdleChunkThread())) return new SharingSink(new ChunkFeed(narSize))
  return new SingleSink(chunks ? new Chunker(narSize) : undefined)
}

/** Bytes of a NAR up to which one thread does all: a second one takes a millisecond to hear of it, and some 50 to start. */
const ALONE_BYTES = 4 * 1024 * 1024
/** Pieces of a large file that are being read while one is hashed. */
const READ_AHEAD = 3
/** Bytes of a piece where nothing but the hash is asked for: to ask for one and to hear of it takes as long as hashing 50 KB. */
const LONE_PIECE_BYTES = 2 * 1024 * 1024

/** Kept for the next NAR: the first use of memory is slow. */
const keptBuffers: Buffer[] = []

class SingleSink implements NarSink {
  readonly pieceBytes: number
  readonly #hash = createHash('sha256')
  readonly #chunker: Chunker | undefined
  readonly #free: Buffer[] = []

  constructor(chunker: Chunker | undefined) {
    this.#chunker = chunker
    this.pieceBytes = chunker === undefined ? LONE_PIECE_BYTES : PIECE_BYTES
    while (keptBuffers.length < READ_AHEAD) keptBuffers.push(Buffer.allocUnsafeSlow(LONE_PIECE_BYTES))
    this.#free.push(...keptBuffers)
  }

  update(bytes: Buffer): void {
    this.#hash.update(bytes)
    this.#chunker?.update(bytes)
  }

  take(): Buffer | undefined {
    // What is never written to takes no memory.
    return this.#free.pop()?.subarray(0, this.pieceBytes)
  }

  waitToTake(): void {
    if (this.#free.length === 0) throw new RangeError('Every buffer is out')
  }

  giveBack(bytes: Buffer): void {
    this.update(bytes)
    this.#free.push(Buffer.from(bytes.buffer))
  }

  async finish(): Promise<NarDigest> {
    return Promise.resolve({ digest: Uint8Array.from(this.#hash.digest()), chunks: this.#chunker?.finish() })
  }

  async stop(): Promise<void> {
    // Nothing is shared.
  }
}

/** Has another thread cut the chunks of the bytes that are hashed here, at the same time. */
class SharingSink implements NarSink {
  readonly pieceBytes = PIECE_BYTES
  readonly #hash = createHash('sha256')
  readonly #feed: ChunkFeed
  #out = 0

  constructor(feed: ChunkFeed) {
    this.#feed = feed
  }

  update(bytes: Buffer, check: () => void): void {
    const { pieces } = this.#feed
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      pieces.waitForRoom(check)
      pieces.give(bytes.copy(pieces.take(), 0, at, at + PIECE_BYTES))
    }
    this.#hash.update(bytes)
  }

  take(): Buffer | undefined {
    if (this.#out >= READ_AHEAD || !this.#feed.pieces.hasRoom) return undefined
    this.#out++
    return this.#feed.pieces.take()
  }

  waitToTake(check: () => void): void {
    this.#feed.pieces.waitForRoom(check)
  }

  giveBack(bytes: Buffer): void {
    this.#out--
    this.#feed.pieces.give(bytes.length)
    // Its memory is taken again by this thread only, later.
    this.#hash.update(bytes)
  }

  async finish(): Promise<NarDigest> {
    return { chunks: await this.#feed.finish(), digest: Uint8Array.from(this.#hash.digest()) }
  }

  async stop(): Promise<void> {
    await this.#feed.stop()
  }
}
