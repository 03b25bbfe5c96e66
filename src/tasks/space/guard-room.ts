import { ROOM_CHECK_BYTES } from '../../limits.ts'
import type { Stage } from '../../p2p/stages.ts'

/** Has the room on the disk looked at now and then while bytes come in; what `check` throws ends the stream. */
export function guardRoom(check: () => Promise<void>): Stage {
  return async function* (source) {
    let unchecked = 0
    for await (const bytes of source) {
      yield bytes
      unchecked += bytes.byteLength
      if (unchecked < ROOM_CHECK_BYTES) continue
      unchecked = 0
      await check()
    }
  }
}
