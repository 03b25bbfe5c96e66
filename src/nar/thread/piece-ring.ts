import { NarvikError } from '../../errors.ts'
import { CHUNK_THREAD_PATIENCE_MS } from '../../limits.ts'

/** Memory that two threads share: the slots that pieces of a NAR lie in, and who is where. */
export interface SharedPieces {
  readonly slots: SharedArrayBuffer
  readonly control: Int32Array<SharedArrayBuffer>
}

/** Bytes of one piece at most. */
export const PIECE_BYTES = 1024 * 1024

/** As many as are read ahead, and one that is cut into chunks meanwhile. */
const SLOTS = 4
/** The indexes of `control`: pieces that were given, pieces that were worked off, whether more come; from LENGTH on the bytes in each slot. */
const GIVEN = 0
const DONE = 1
const ENDED = 2
const LENGTH = 3
/** Milliseconds after which a thread that waits looks again whether it still should. */
const LOOK_AGAIN_MS = 100
/** How often it looks again for a piece that the other thread works at: far more than one takes, so that a thread that died stops nobody for good. */
const PATIENCE = CHUNK_THREAD_PATIENCE_MS / LOOK_AGAIN_MS

export function createPieces(): SharedPieces {
  return { slots: new SharedArrayBuffer(SLOTS * PIECE_BYTES), control: new Int32Array(new SharedArrayBuffer(4 * (LENGTH + SLOTS))) }
}

/** The side of the thread that has the bytes. Pieces are given in the order in which their memory was taken. */
export class PieceGiver {
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #slots: readonly Buffer[]
  /** Pieces whose memory was taken, and those that were given. */
  #taken = 0
  #given = 0
  #isStuck = false

  constructor(shared: SharedPieces) {
    this.#control = shared.control
    this.#slots = slotsOf(shared)
    this.#control.fill(0)
  }

  /** Whether the other thread was waited for in vain. */
  get isStuck(): boolean {
    return this.#isStuck
  }

  get hasRoom(): boolean {
    return this.#taken - Atomics.load(this.#control, DONE) < SLOTS
  }

  /** The memory of the next piece; only while there is room. */
  take(): Buffer {
    return slot(this.#slots, this.#taken++)
  }

  /** Gives the first piece that was taken and not given yet, with `length` bytes in it. */
  give(length: number): void {
    Atomics.store(this.#control, LENGTH + this.#given % SLOTS, length)
    Atomics.store(this.#control, GIVEN, ++this.#given)
    Atomics.notify(this.#control, GIVEN)
  }

  /** Until there is room: only where every piece that was taken was given as well. `check` is called meanwhile, and may throw. */
  waitForRoom(check: () => void): void {
    for (let waited = 0; !this.hasRoom;) {
      const done = Atomics.load(this.#control, DONE)
      if (this.#taken - done < SLOTS) return
      const isLate = Atomics.wait(this.#control, DONE, done, LOOK_AGAIN_MS) === 'timed-out'
      waited = isLate ? waited + 1 : 0
      if (waited >= PATIENCE) {
        this.#isStuck = true
        throw doesNothing()
      }
      check()
    }
  }

  /** No more pieces come. */
  end(): void {
    Atomics.store(this.#control, ENDED, 1)
    Atomics.notify(this.#control, GIVEN)
  }
}

export function doesNothing(): NarvikError {
  return new NarvikError('internal', 'Cannot cut a NAR into chunks: found that the thread for it does nothing, needed it to go on')
}

/** The side of the thread that works the pieces off, in order; each is good until the next one is asked for. */
export function* piecesOf(shared: SharedPieces): Generator<Buffer, void, undefined> {
  const { control } = shared
  const slots = slotsOf(shared)
  for (let piece = 0; waitForPiece(control, piece); piece++) {
    yield slot(slots, piece).subarray(0, Atomics.load(control, LENGTH + piece % SLOTS))
    Atomics.store(control, DONE, piece + 1)
    Atomics.notify(control, DONE)
  }
}

/** Whether the piece has come; false where no more do. */
function waitForPiece(control: Int32Array<SharedArrayBuffer>, piece: number): boolean {
  for (;;) {
    // In this order: what was given before the end is still worked off.
    const hasEnded = Atomics.load(control, ENDED) !== 0
    const given = Atomics.load(control, GIVEN)
    if (given > piece) return true
    if (hasEnded) return false
    Atomics.wait(control, GIVEN, given, LOOK_AGAIN_MS)
  }
}

function slotsOf({ slots }: SharedPieces): Buffer[] {
  return Array.from({ length: SLOTS }, (_, index) => Buffer.from(slots, index * PIECE_BYTES, PIECE_BYTES))
}

function slot(slots: readonly Buffer[], piece: number): Buffer {
  const buffer = slots[piece % SLOTS]
  if (buffer === undefined) throw new RangeError(`No slot for piece ${piece}`)
  return buffer
}
