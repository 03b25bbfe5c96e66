import { NarvikError } from '../errors.ts'

/** A stage of a pipeline of byte buffers. */
export type Stage = (source: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>

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
