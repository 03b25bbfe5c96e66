import { batchBufferBytes, type BatchFiller, type Batches, isLargeBatch } from './batches.ts'
import type { Listing } from '../../image/listing.ts'

/** Memory that two threads share: the slots that batches are made in, and who is where. */
export interface SharedRing {
  readonly slots: SharedArrayBuffer
  readonly control: Int32Array<SharedArrayBuffer>
}

const SLOTS = 6
/** The indexes of `control`; from READY on, for each slot the number after that of the batch that is in it, then each slot's length. */
const NEXT = 0
const HASHED = 1
const STOPPED = 2
const READY = 3
const LENGTH = READY + SLOTS
/** The length of a batch that could not be made. */
const FAILED = -1
/** Milliseconds after which a thread that waits looks again, should it have missed that it was woken. */
const LOOK_AGAIN_MS = 100
/** How often it looks again for a batch that the other thread has begun. */
const PATIENCE = 100

/** As much memory as the tree needs: most trees are small. */
export function createRing(batches: Batches): SharedRing {
  const slots = Math.min(SLOTS, batches.firsts.length - 1)
  return { slots: new SharedArrayBuffer(slots * batchBufferBytes(batches)), control: new Int32Array(new SharedArrayBuffer(4 * (LENGTH + SLOTS))) }
}

/**
 * One thread's side of a ring in which batches are made, by whichever thread has time, some way ahead of the one that hashes them in order.
 * A large file has its turn but nothing is put into its slot.
 */
export class BatchRing {
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #slots: Buffer[]
  readonly #filler: BatchFiller
  readonly #listing: Listing
  readonly #batches: Batches
  readonly count: number
  #own: Buffer | undefined

  constructor({ slots, control }: SharedRing, filler: BatchFiller, listing: Listing, batches: Batches) {
    this.#control = control
    const bytes = batchBufferBytes(batches)
    this.#slots = Array.from({ length: slots.byteLength / bytes }, (_, slot) => Buffer.from(slots, slot * bytes, bytes))
    this.#filler = filler
    this.#listing = listing
    this.#batches = batches
    this.count = batches.firsts.length - 1
  }

  /**
   * The bytes of `batch`, for the thread that hashes: until they are there it makes batches itself. Good until `release`.
   * `check` is called while it has to wait, and may throw.
   */
  take(batch: number, check: () => void): Buffer {
    if (this.#own !== undefined || !this.#awaitBatch(batch, check)) return this.#takeAlone(batch)
    const slot = batch % SLOTS
    const length = Atomics.load(this.#control, LENGTH + slot)
    // What failed in the other thread is tried again here, to fail with the same reason or not at all.
    return length === FAILED ? this.#takeAlone(batch) : this.#slot(slot).subarray(0, length)
  }

  /** Gives the slot of `batch`, the last that was taken, free for another. */
  release(batch: number): void {
    Atomics.store(this.#control, HASHED, batch + 1)
    Atomics.notify(this.#control, HASHED)
  }

  /** Ends the other thread's `work`. */
  stop(): void {
    Atomics.store(this.#control, STOPPED, 1)
    Atomics.notify(this.#control, HASHED)
  }

  /** Makes batches until there are no more, for the thread that helps. */
  work(): void {
    for (;;) {
      const batch = Atomics.add(this.#control, NEXT, 1)
      if (batch >= this.count || !this.#waitForSlot(batch)) return
      try {
        this.#make(batch)
      } catch {
        this.#publish(batch, FAILED)
      }
    }
  }

  /** Whether the batch has come; a thread that died, or a disk that hangs, must not stop this one for good. */
  #awaitBatch(batch: number, check: () => void): boolean {
    const slot = batch % SLOTS
    for (let waited = 0; waited < PATIENCE;) {
      const ready = Atomics.load(this.#control, READY + slot)
      if (ready === batch + 1) return true
      if (this.#help(batch)) continue
      if (Atomics.wait(this.#control, READY + slot, ready, LOOK_AGAIN_MS) === 'timed-out') waited++
      check()
    }
    return false
  }

  /** From here on without the other thread, whose slots can't be trusted any more. */
  #takeAlone(batch: number): Buffer {
    this.stop()
    this.#own ??= Buffer.allocUnsafeSlow(batchBufferBytes(this.#batches))
    const length = isLargeBatch(this.#listing, this.#batches, batch) ? 0 : this.#filler.fill(batch, this.#own)
    return this.#own.subarray(0, length)
  }

  /** Makes the next batch that nobody has begun, if there is a slot for it; whether there was. */
  #help(current: number): boolean {
    const batch = Atomics.load(this.#control, NEXT)
    if (batch >= Math.min(this.count, current + SLOTS)) return false
    if (Atomics.compareExchange(this.#control, NEXT, batch, batch + 1) === batch) this.#make(batch)
    return true
  }

  #waitForSlot(batch: number): boolean {
    for (;;) {
      if (Atomics.load(this.#control, STOPPED) !== 0) return false
      const hashed = Atomics.load(this.#control, HASHED)
      if (batch < hashed + SLOTS) return true
      Atomics.wait(this.#control, HASHED, hashed, LOOK_AGAIN_MS)
    }
  }

  #make(batch: number): void {
    const isLarge = isLargeBatch(this.#listing, this.#batches, batch)
    this.#publish(batch, isLarge ? 0 : this.#filler.fill(batch, this.#slot(batch % SLOTS)))
  }

  #publish(batch: number, length: number): void {
    const slot = batch % SLOTS
    Atomics.store(this.#control, LENGTH + slot, length)
    Atomics.store(this.#control, READY + slot, batch + 1)
    Atomics.notify(this.#control, READY + slot)
  }

  #slot(slot: number): Buffer {
    const buffer = this.#slots[slot]
    if (buffer === undefined) throw new RangeError(`No slot ${slot}`)
    return buffer
  }
}
