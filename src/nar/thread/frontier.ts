import { PIECE_BYTES } from './piece-ring.ts'

/** Memory that two threads share: how far the bytes of a NAR have come, and how far they are hashed. */
export type SharedFrontier = BigInt64Array<SharedArrayBuffer>

const REACHED = 0
const HASHED = 1

export function createFrontier(): SharedFrontier {
  return new BigInt64Array(new SharedArrayBuffer(16))
}

/** Every byte below `offset` is there now, of `size` in all. The thread that waits takes a piece at a time, and is woken when that may be whole. */
export function advanceTo(shared: SharedFrontier, offset: number, size: number): void {
  const before = Atomics.exchange(shared, REACHED, BigInt(offset))
  if (offset === size || Math.floor(offset / PIECE_BYTES) > Math.floor(Number(before) / PIECE_BYTES)) wake(shared)
}

/** Has the thread that waits look whether it still should. */
export function wake(shared: SharedFrontier): void {
  Atomics.notify(shared, REACHED)
}

export function hashedSoFar(shared: SharedFrontier): number {
  return Number(Atomics.load(shared, HASHED))
}

export function setHashed(shared: SharedFrontier, offset: number): void {
  Atomics.store(shared, HASHED, BigInt(offset))
}

export function hasReached(shared: SharedFrontier, offset: number): boolean {
  return Atomics.load(shared, REACHED) >= BigInt(offset)
}

/** Until every byte below `offset` is there; sleeps meanwhile. `check` is called at each wake, and may throw. */
export function waitUntilReached(shared: SharedFrontier, offset: number, check: () => void): void {
  for (;;) {
    check()
    const reached = Atomics.load(shared, REACHED)
    if (reached >= BigInt(offset)) return
    Atomics.wait(shared, REACHED, reached, LOOK_AGAIN_MS)
  }
}

/** Should the wake come between the check and the wait. */
const LOOK_AGAIN_MS = 1000
