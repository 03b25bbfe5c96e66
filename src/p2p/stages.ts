import { NarvikError } from '../errors.ts'

/** A stage of a pipeline of byte buffers. */
export type Stage = (source: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>

/** Passes buffers on in pieces of at most `max` bytes, without copying. */
export function inPieces(max: number): Stage {
  return async function* (source) {
    for await (const bytes of source) {
      for (let start = 0; start < bytes.byteLength; start += max) yield bytes.subarray(start, start + max)
    }
  }
}

/** Passes bytes on and fails unless they are `length` in all; not a byte beyond is passed on. */
export function exactly(length: number): Stage {
  return async function* (source) {
    let passed = 0
    for await (const bytes of source) {
      passed += bytes.byteLength
      if (passed > length) throw new NarvikError('internal', `Cannot pass on a range of a NAR: found more than ${length} bytes, needed no more`)
      yield bytes
    }
    if (passed < length) throw new NarvikError('internal', `Cannot pass on a range of a NAR: found the end after ${passed} bytes, needed ${length}`)
  }
}
