import { describe, expect, it } from 'vitest'
import { CLOCK_SKEW_MS, RECORD_LIFETIME_MS, RECORD_UNIT_BYTES } from '../../../src/limits.ts'
import { StorageQuota } from '../../../src/p2p/storage-quota.ts'

const KEPT_MS = RECORD_LIFETIME_MS + CLOCK_SKEW_MS
const key = (number: number): Uint8Array => Uint8Array.of(number >> 8, number)

/** How many more records a peer can have kept, one after the other. */
function fill(quota: StorageQuota, peerId: string, bytes = 0): number {
  for (let number = 0; ; number++) if (!quota.takes(peerId, key(number), bytes)) return number
}

describe('what is kept for others', () => {
  it('is bounded for one peer, is renewed, and has room again when it ran out', () => {
    let now = 0
    const quota = new StorageQuota({ perPeer: 2, inAll: 100, now: () => now })
    expect([1, 2, 3].map(number => quota.takes('one', key(number)))).toEqual([true, true, false])
    now = 1000
    expect(quota.takes('one', key(2))).toBe(true)
    now = KEPT_MS
    expect([3, 4].map(number => quota.takes('one', key(number))), 'the renewed one is still there').toEqual([true, false])
  })

  // Watches that nobody, under however many identities, takes what is left for the others.
  it('leaves room for a newcomer, however many peers take all that they can get', () => {
    const quota = new StorageQuota({ perPeer: 1000, inAll: 1000, now: () => 0 })
    const greedy = Array.from({ length: 5 }, (_, index) => fill(quota, `greedy-${index}`))
    expect(greedy[0]).toBeGreaterThan(600)
    expect(greedy[0]).toBeLessThan(700)
    expect(fill(quota, 'newcomer')).toBeGreaterThan(1)
    const fair = new StorageQuota({ perPeer: 1000, inAll: 1000, now: () => 0 })
    for (let number = 0; number < 100; number++) for (const peerId of ['a', 'b', 'c']) fair.takes(peerId, key(number))
    expect(fill(fair, 'd')).toBeGreaterThan(400)
  })

  it('counts long records as several', () => {
    const quota = new StorageQuota({ perPeer: 16, inAll: 1000, now: () => 0 })
    expect(fill(quota, 'a', 8 * RECORD_UNIT_BYTES)).toBe(2)
    expect(fill(quota, 'b', RECORD_UNIT_BYTES)).toBe(16)
    expect(quota.takes('b', key(3), RECORD_UNIT_BYTES + 1), 'a longer one in the place of one that is there').toBe(false)
  })

  it('is forgotten of peers of which nothing is left', () => {
    let now = 0
    const quota = new StorageQuota({ perPeer: 10, inAll: 12, now: () => now })
    for (const peerId of ['a', 'b', 'c', 'd']) fill(quota, peerId)
    expect(quota.takes('e', key(1))).toBe(false)
    now = KEPT_MS
    expect(fill(quota, 'e')).toBe(8)
  })
})
