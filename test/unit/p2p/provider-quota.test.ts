import { expect, it } from 'vitest'
import { ProviderQuota } from '../../../src/p2p/provider-quota.ts'
import { RECORD_LIFETIME_MS } from '../../../src/limits.ts'

const key = (number: number): Uint8Array => Uint8Array.of(number)

it('keeps so many records of one peer and of all, renews those that are there, and has room again when they ran out', () => {
  let now = 0
  const quota = new ProviderQuota({ perPeer: 2, inAll: 3, now: () => now })
  expect([1, 2, 3].map(number => quota.takes('one', key(number)))).toEqual([true, true, false])
  now = 1000
  expect(quota.takes('one', key(2))).toBe(true)
  expect([4, 5].map(number => quota.takes('other', key(number)))).toEqual([true, false])
  now = RECORD_LIFETIME_MS
  expect([3, 6].map(number => quota.takes('one', key(number))), 'the renewed one is still there').toEqual([true, false])
  now += 2000
  expect(quota.takes('third', key(7))).toBe(true)
})
