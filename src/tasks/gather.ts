import type { Stage } from '../p2p/stages.ts'

/**
 * Joins small buffers to ones of about `size` bytes, so that each write to a file is worth its cost; a stream that ends,
 * or breaks, loses nothing of what came before.
 */
export function gather(size: number): Stage {
  return async function* (source) {
    let parts: Uint8Array[] = []
    let length = 0
    const take = (): Uint8Array => {
      const joined = parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts, length)
      parts = []
      length = 0
      return joined
    }
    try {
      for await (const bytes of source) {
        parts.push(bytes)
        length += bytes.length
        if (length >= size) yield take()
      }
    } catch (error) {
      if (length > 0) yield take()
      throw error
    }
    if (length > 0) yield take()
  }
}
