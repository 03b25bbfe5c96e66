import { ROOM_CHECK_BYTES } from '../../limits.ts'
import type { Stage } from '../../p2p/stages.ts'

/** Has the room on the disk looked at now and then while bytes come in, from however many sides. */
export class RoomGuard {
  readonly #check: () => Promise<void>
  #unchecked = 0

  constructor(check: () => Promise<void>) {
    this.#check = check
  }

  /** So many bytes have come; rejects with what `check` throws. */
  async add(bytes: number): Promise<void> {
    this.#unchecked += bytes
    if (this.#unchecked < ROOM_CHECK_BYTES) return
    this.#unchecked = 0
    await this.#check()
  }
}

/** A stream whose bytes are guarded; what `check` throws ends it. */
export function guardRoom(check: () => Promise<void>): Stage {
  return async function* (source) {
    const guard = new RoomGuard(check)
    for await (const bytes of source) {
      yield bytes
      await guard.add(bytes.byteLength)
    }
  }
}
