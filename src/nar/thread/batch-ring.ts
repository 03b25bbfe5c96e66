import { BATCH_BUFFER_BYTES, type BatchFiller, type Batches, countOf, isLargeBatch } from './batches.ts'
import type { Listing } from '../../image/listing.ts'
import { HELPER_PATIENCE_MS } from '../../limits.ts'

/** Memory that two threads share: the slots that batches are made in, and who is where. */
export interface SharedRing {
  readonly slots: SharedArrayBuffer
  readonly control: Int32Array<SharedArrayBuffer>
}

const SLOTS = 4
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
const PATIENCE = HELPER_PATIENCE_MS / LOOK_AGAIN_MS

/** Who gives the batches of a tree, to be taken in order. */
export interface BatchSource {
  readonly count: number
  /** The bytes of `batch`; none of one of a large file. Good until `release`. `check` is called where it has to wait, and may throw. */
  take(batch: number, check: () => void): Buffer
  /** Gives the memory of `batch`, the last that was taken, free for another. */
  release(batch: number): void
  stop(): void
}

/** Kept by the thread for the next tree: what is given back to a thread's own heap is free only at its next collection. */
let keptBuffer: Buffer | undefined
let keptSlots: SharedArrayBuffer | undefined

export function createRing(): SharedRing {
  keptSlots ??= new SharedArrayBuffer(SLOTS * BATCH_BUFFER_BYTES)
  return { slots: keptSlots, control: new Int32Array(new SharedArrayBuffer(4 * (LENGTH + SLOTS))) }
}

/** Has the next ring use other memory: a thread that was given up may still write to this. */
export function forgetSlots({ slots }: SharedRing): void {
  if (keptSlots === slots) keptSlots = undefined
}

/** Makes each batch when it is asked for. */
export class LoneBatches implements BatchSource {
  readonly #filler: BatchFiller
  readonly #listing: Listing
  readonly #batches: Batches
  readonly count: number

  constructor(filler: BatchFiller, listing: Listing, batches: Batches) {
    this.#filler = filler
    this.#listing = listing
    this.#batches = batches
    this.count = countOf(batches)
  }

  take(batch: number): Buffer {
    keptBuffer ??= Buffer.allocUnsafeSlow(BATCH_BUFFER_BYTES)
    return keptBuffer.subarray(0, isLargeBatch(this.#listing, this.#batches, batch) ? 0 : this.#filler.fill(batch, keptBuffer))
  }

  release(): void {
    // The next one is written over it.
  }

  stop(): void {
    // Nobody else is at it.
  }
}

/**
 * One thread's side of a ring in which batches are made, by whichever thread has time, some way ahead of the one that hashes them in order.
 * A large file has its turn but nothing is put into its slot.
 */
export class BatchRing implements BatchSource {
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #slots: Buffer[]
  readonly #filler: BatchFiller
  readonly #listing: Listing
  readonly #batches: Batches
  readonly count: number
  #alone: LoneBatches | undefined

  constructor({ slots, control }: SharedRing, filler: BatchFiller, listing: Listing, batches: Batches) {
    this.#control = control
    this.#slots = Array.from({ length: SLOTS }, (_, slot) => Buffer.from(slots, slot * BATCH_BUFFER_BYTES, BATCH_BUFFER_BYTES))
    this.#filler = filler
    this.#listing = listing
    this.#batches = batches
    this.count = countOf(batches)
  }

  /**
   * The bytes of `batch`, for the thread that hashes: until they are there it makes batches itself. Good until `release`.
   * `check` is called while it has to wait, and may throw.
   */
  take(batch: number, check: () => void): Buffer {
    if (this.#alone !== undefined || !this.#awaitBatch(batch, check)) return this.#takeAlone(batch)
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
    this.#alone ??= new LoneBatches(this.#filler, this.#listing, this.#batches)
    return this.#alone.take(batch)
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
