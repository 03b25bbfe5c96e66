import type { NarHash } from '../../src/image/nar-hash.ts'
import { NarvikError } from '../../src/errors.ts'
import type { ImageSource } from '../../src/p2p/protocol.ts'

/** Byte `index` of a made-up NAR: no two ranges of it are alike. */
export function byteAt(index: number): number {
  return (index ^ (index >>> 8) ^ (index >>> 16) * 31) & 0xff
}

export function rangeOf(offset: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => byteAt(offset + index))
}

/** A made-up image of `size` bytes, and how much of it was asked for. */
export class MadeUpSource implements ImageSource {
  readonly narHash: NarHash
  readonly size: number
  /** Bytes that the serving end has pulled. */
  pulled = 0
  /** Readers that have not ended. */
  reading = 0
  bufferBytes = 100_000

  constructor(narHash: NarHash, size: number) {
    this.narHash = narHash
    this.size = size
  }

  async describe(narHash: NarHash): ReturnType<ImageSource['describe']> {
    await Promise.resolve()
    if (!narHash.equals(this.narHash)) return undefined
    return {
      verified: true,
      metadata: {
        narHash, narSize: this.size, storePath: null, references: [], deriver: null, ca: null, signatures: [], name: 'made-up', manifestDigest: null,
      },
      manifest: rangeOf(0, 1000),
    }
  }

  async *read(narHash: NarHash, offset: number, length: number, { signal }: { signal: AbortSignal }): AsyncGenerator<Uint8Array> {
    if (!narHash.equals(this.narHash)) throw new NarvikError('not-found', 'Cannot read: found no such image, needed one')
    if (offset + length > this.size) throw new NarvikError('invalid-argument', 'Cannot read: found a range beyond the end, needed one within')
    this.reading += 1
    try {
      for (let at = offset; at < offset + length; at += this.bufferBytes) {
        await new Promise(setImmediate)
        signal.throwIfAborted()
        const bytes = rangeOf(at, Math.min(this.bufferBytes, offset + length - at))
        this.pulled += bytes.byteLength
        yield bytes
      }
    } finally {
      this.reading -= 1
    }
  }
}
