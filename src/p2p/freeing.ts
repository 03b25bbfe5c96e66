/** Bytes of each buffer that are still to be copied. */
const left = new WeakMap<ArrayBuffer, number>()
/** Smaller ones are too few bytes to wait for. */
const MIN_BYTES = 4096

/**
 * Has the memory of a buffer freed as soon as `copied` was told of each of its bytes, once, and not at some later collection of all garbage: what
 * waits at a busy host outlives the young generation of the heap, and with it many times what is alive would lie about. Whoever still has
 * the buffer then finds it empty. One that shares its memory with others is left to the garbage collection, and so is one of whose bytes
 * some are never copied.
 */
export function freeOnceCopied({ buffer, byteLength }: Uint8Array): void {
  if (byteLength >= MIN_BYTES && byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) left.set(buffer, byteLength)
}

/** Says that these bytes were copied, and that nobody needs them here any more. */
export function copied({ buffer, byteLength }: Uint8Array): void {
  if (!(buffer instanceof ArrayBuffer)) return
  const before = left.get(buffer)
  if (before === undefined) return
  left.set(buffer, before - byteLength)
  if (before > byteLength) return
  left.delete(buffer)
  // Memory that is moved away to nothing is free.
  buffer.transfer(0)
}
