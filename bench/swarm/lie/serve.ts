import type { ImageSource } from '../../../src/p2p/protocol.ts'
import { createImageSource as createHonestSource, type ServeParts } from '../../../src/tasks/serve.ts'

export * from '../../../src/tasks/serve.ts'

/** The fewest bytes of a chunk: a wrong byte at every multiple of it is one in every chunk. */
const SMALLEST_CHUNK = 16 * 1024

/** Serves what the honest source does, with a bit flipped in every chunk. */
export function createImageSource(parts: ServeParts): ImageSource {
  const honest = createHonestSource(parts)
  return { ...honest, read: (narHash, offset, length, options) => flip(honest.read(narHash, offset, length, options), offset) }
}

async function* flip(source: AsyncIterable<Uint8Array>, start: number): AsyncGenerator<Uint8Array> {
  let offset = start
  for await (const bytes of source) {
    const wrong = Uint8Array.from(bytes)
    // In the middle, so that no byte of the NAR's frame is hit, which would be noticed without any hash.
    const first = (SMALLEST_CHUNK * 1.5 - offset % SMALLEST_CHUNK) % SMALLEST_CHUNK
    for (let at = first; at < wrong.length; at += SMALLEST_CHUNK) wrong[at] = (wrong[at] ?? 0) ^ 1
    offset += bytes.length
    yield wrong
  }
}
