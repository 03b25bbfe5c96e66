import { NarvikError } from '../errors.ts'

import type { Stage } from '../p2p/stages.ts'

export interface Pace {
  /** Milliseconds of waiting over which the speed is judged. */
  readonly windowMs: number
  /** The least speed that is accepted while there is another provider. */
  readonly bytesPerSecond: number
  readonly hasAlternative: () => boolean
}

/** Fails with `peer-failed` when the source is too slow; only the time spent on waiting for it counts. */
export function guardPace({ windowMs, bytesPerSecond, hasAlternative }: Pace): Stage {
  return async function* (source) {
    let waited = 0
    let seen = 0
    let since = performance.now()
    for await (const bytes of source) {
      waited += performance.now() - since
      seen += bytes.length
      if (waited >= windowMs) {
        const rate = Math.round(seen * 1000 / waited)
        if (rate < bytesPerSecond && hasAlternative()) {
          throw new NarvikError('peer-failed', `Cannot go on with this provider: found ${rate} bytes/s, needed ${bytesPerSecond}, and another one is there`)
        }
        waited = 0
        seen = 0
      }
      yield bytes
      since = performance.now()
    }
  }
}
