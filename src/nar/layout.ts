import { NarvikError } from '../errors.ts'
import type { Listing } from '../image/listing.ts'
import type { Manifest } from '../image/manifest.ts'
import { MAX_NAR_SIZE } from '../limits.ts'
import { headLength, MAX_FRAME_BYTES, tailLength, writeHead, writeTail } from './framing.ts'

/** A run of the NAR that is either framing, given as its bytes, or lies within one file of the tree. */
export type Segment =
  | { readonly kind: 'frame', readonly bytes: Buffer }
  | { readonly kind: 'contents', readonly entry: number, readonly fileOffset: number, readonly length: number }

/**
 * The map between offsets of an image's NAR and the files of its tree. It is made from the listing alone, so it can be had
 * before the tree is there.
 */
export class Layout {
  readonly listing: Listing
  /** Bytes of the whole NAR. */
  readonly narSize: number
  /** Where each entry's head begins in the NAR. */
  readonly #offsets: Float64Array

  private constructor(listing: Listing, offsets: Float64Array, narSize: number) {
    this.listing = listing
    this.#offsets = offsets
    this.narSize = narSize
  }

  /** @throws NarvikError `too-large` where the NAR would be over MAX_NAR_SIZE. */
  static of(listing: Listing): Layout {
    const offsets = new Float64Array(listing.count)
    let at = 0
    for (let entry = 0; entry < listing.count; entry++) {
      offsets[entry] = at
      at += headLength(listing, entry) + listing.size(entry) + tailLength(listing, entry)
    }
    return new Layout(listing, offsets, checkNarSize(at))
  }

  /**
   * The layout of what a manifest describes.
   * @throws NarvikError `invalid-manifest` where its chunks are not those of a NAR of its listing's size; `too-large`.
   */
  static describedBy({ listing, chunks }: Manifest): Layout {
    const layout = Layout.of(listing)
    if (chunks.narSize === layout.narSize || chunks.isNone) return layout
    throw new NarvikError('invalid-manifest', `Cannot lay out a manifest: found chunks of ${chunks.narSize} bytes, needed the ${layout.narSize} of its listing`)
  }

  /** Where the contents of a regular file begin in the NAR; the end of the head for any other entry. */
  contentsOffset(entry: number): number {
    return this.#offset(entry) + headLength(this.listing, entry)
  }

  /** The entry in whose head, contents or tail the byte at `offset` of the NAR lies. */
  entryAt(offset: number): number {
    let low = 0
    let high = this.listing.count - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#offset(middle) <= offset) low = middle
      else high = middle - 1
    }
    return low
  }

  /**
   * The segments of `length` bytes of the NAR from `offset`, in order and without gaps. Every frame is a buffer of its own.
   * @throws NarvikError `invalid-argument` where the range isn't within the NAR.
   */
  * segments(offset: number, length: number): Generator<Segment, void, undefined> {
    this.checkRange(offset, length)
    const end = offset + length
    const frame = new FrameCollector(offset, end)
    for (let entry = this.entryAt(offset); length > 0 && entry < this.listing.count; entry++) {
      const start = this.#offset(entry)
      if (start >= end) break
      const contents = start + headLength(this.listing, entry)
      frame.add(start, (out, at) => writeHead(this.listing, entry, out, at))
      const size = this.listing.size(entry)
      const from = Math.max(offset, contents)
      const to = Math.min(end, contents + size)
      if (from < to) {
        yield* frame.take()
        yield { kind: 'contents', entry, fileOffset: from - contents, length: to - from }
      }
      frame.add(contents + size, (out, at) => writeTail(this.listing, entry, out, at))
      if (frame.isFull) yield* frame.take()
    }
    yield* frame.take()
  }

  checkRange(offset: number, length: number): void {
    if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && offset + length <= this.narSize) return
    throw new NarvikError('invalid-argument', `Cannot take a range of a NAR: found ${length} bytes at ${offset}, needed a range within ${this.narSize} bytes`)
  }

  #offset(entry: number): number {
    return this.#offsets[entry] ?? 0
  }
}

/**
 * Bytes of the NAR of a tree.
 * @throws NarvikError `too-large` where that is over MAX_NAR_SIZE.
 */
export function narSizeOf(listing: Listing): number {
  let size = 0
  for (let entry = 0; entry < listing.count; entry++) size += headLength(listing, entry) + listing.size(entry) + tailLength(listing, entry)
  return checkNarSize(size)
}

function checkNarSize(size: number): number {
  if (size <= MAX_NAR_SIZE) return size
  throw new NarvikError('too-large', `Cannot make a NAR of the tree: found ${size} bytes, needed at most ${MAX_NAR_SIZE}`)
}

/** Joins adjoining heads and tails, cut to a range, into one buffer. */
class FrameCollector {
  readonly #from: number
  readonly #to: number
  readonly #scratch = Buffer.allocUnsafe(FRAME_BYTES)
  #length = 0

  constructor(from: number, to: number) {
    this.#from = from
    this.#to = to
  }

  get isFull(): boolean {
    return this.#length > FRAME_BYTES - 3 * MAX_FRAME_BYTES
  }

  /** Adds what `write` writes, which stands at `start` of the NAR, as far as it is within the range. */
  add(start: number, write: (out: Buffer, at: number) => number): void {
    if (start >= this.#to) return
    const written = write(this.#scratch, this.#length) - this.#length
    const skipped = Math.min(written, Math.max(0, this.#from - start))
    const kept = Math.max(skipped, Math.min(written, this.#to - start))
    if (skipped > 0) this.#scratch.copyWithin(this.#length, this.#length + skipped, this.#length + kept)
    this.#length += kept - skipped
  }

  * take(): Generator<Segment, void, undefined> {
    if (this.#length === 0) return
    yield { kind: 'frame', bytes: Buffer.from(this.#scratch.subarray(0, this.#length)) }
    this.#length = 0
  }
}

/** Bytes of framing that are joined at most; a directory of symlinks or empty files is all framing. */
const FRAME_BYTES = 64 * 1024
