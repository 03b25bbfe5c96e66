/** Numbers from 0 up to 1 that a seed replays exactly (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A seed for the scheduler: another number on each host. */
export function seedOf(peerId: string): number {
  let seed = 0
  for (let index = 0; index < peerId.length; index++) seed = Math.imul(seed, 31) + peerId.charCodeAt(index) | 0
  return seed
}
