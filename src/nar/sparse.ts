/** A run of a buffer that is either all zeros in whole blocks of the file, or to be written. */
export interface Run {
  readonly start: number
  readonly end: number
  readonly isZero: boolean
}

/** The runs of `bytes`, which lie at `position` of a file: what is zero in whole blocks needs no place on the disk. */
export function* runsOf(bytes: Uint8Array, position: number): Generator<Run, void, undefined> {
  let start = 0
  let wasZero: boolean | undefined
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + BLOCK_BYTES - (position + at) % BLOCK_BYTES)
    const isZero = end - at === BLOCK_BYTES && isZeroBlock(bytes, at)
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

/** The block of nearly every file system; a wrong guess only costs room on the disk. */
const BLOCK_BYTES = 4096
const ZEROS = Buffer.alloc(BLOCK_BYTES)

function isZeroBlock(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0 && ZEROS.compare(bytes, at, at + BLOCK_BYTES) === 0
}
