import type { MessageStream } from '@libp2p/interface'
import { rangeOf } from './bytes.ts'

const MIB = 1024 * 1024

/** A stream of bytes that repeats itself at no power of two. */
const PATTERN = rangeOf(0, MIB - 13)
const PATTERNS = Buffer.concat([PATTERN, PATTERN])

/** `length` bytes from `offset` of the pattern, a MiB at most. */
export function bytesAt(offset: number, length: number): Uint8Array {
  const start = offset % PATTERN.byteLength
  return PATTERNS.subarray(start, start + length)
}

/** Counts what arrives, and checks it against what `bytesAt` gives from byte 0 on. */
export function count(stream: MessageStream): { bytes: number, wrong: boolean } {
  const seen = { bytes: 0, wrong: false }
  stream.addEventListener('message', ({ data }) => {
    for (const bytes of data instanceof Uint8Array ? [data] : data) {
      if (Buffer.compare(bytes, bytesAt(seen.bytes, bytes.byteLength)) !== 0) seen.wrong = true
      seen.bytes += bytes.byteLength
    }
  })
  return seen
}

/** Sends the first `length` bytes of the pattern, as fast as the stream takes them. */
export async function pump(stream: MessageStream, length: number): Promise<void> {
  for (let at = 0; at < length; at += 256 * 1024) {
    if (!stream.send(bytesAt(at, 256 * 1024))) await new Promise(resolve => { stream.addEventListener('drain', resolve, { once: true }) })
  }
}
