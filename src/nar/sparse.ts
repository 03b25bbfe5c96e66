/** A run of a buffer that is either all zeros, in blocks of the file or what the buffer has of them, or to be written. */
export interface Run {
  readonly start: number
  readonly end: number
  readonly isZero: boolean
}

/**
 * The runs of `bytes`, which lie at `position` of a file: a block that is zero needs no place on the disk. What the buffer has of its first and last block
 * is looked at by itself, or each buffer of a long run of zeros would leave two blocks behind.
 */
export function* runsOf(bytes: Uint8Array, position: number): Generator<Run, void, undefined> {
  let start = 0
  let wasZero: boolean | undefined
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + BLOCK_BYTES - (position + at) % BLOCK_BYTES)
    const isZero = isZeroPart(bytes, at, end)
    if (isZero !== wasZero) {
      if (wasZero !== undefined) yield { start, end: at, isZero: wasZero }
      start = at
      wasZero = isZero
    }
    at = end
  }
  if (wasZero !== undefined) yield { start, end: bytes.length, isZero: wasZero }
}

/** Whether all of `bytes` are zero. */
export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const end = Math.min(bytes.length, at + BLOCK_BYTES)
    if (ZEROS.compare(bytes, at, end, 0, end - at) !== 0) return false
  }
  return true
}

/** Bytes of a block of nearly every file system; a wrong guess only costs room on the disk. */
export const BLOCK_BYTES = 4096
const ZEROS = Buffer.alloc(BLOCK_BYTES)

function isZeroPart(bytes: Uint8Array, start: number, end: number): boolean {
  return bytes[start] === 0 && ZEROS.compare(bytes, start, end, 0, end - start) === 0
}
