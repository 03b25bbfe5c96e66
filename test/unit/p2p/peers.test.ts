import { describe, expect, it } from 'vitest'
import { BAN_MEMORY_MS, MAX_BAN_MS } from '../../../src/limits.ts'
import { type Ban, Bans, type BanStore } from '../../../src/p2p/bans.ts'
import { Gate } from '../../../src/p2p/gate.ts'
import { PeerLimits } from '../../../src/p2p/peer-limits.ts'

const HOUR = 3_600_000

class MemoryBanStore implements BanStore {
  readonly kept = new Map<string, Ban>()
  list(): Ban[] { return [...this.kept.values()] }
  put(ban: Ban): void { this.kept.set(ban.peerId, ban) }
  remove(peerId: string): void { this.kept.delete(peerId) }
}

describe('a ban', () => {
  it('ends by itself, and takes twice as long each further time', () => {
    let now = 1_000_000
    const bans = new Bans({ now: () => now })
    for (const [times, hours] of [[1, 1], [2, 2], [3, 4], [4, 8]] as const) {
      expect(bans.add('liar', HOUR, 'it lied')).toMatchObject({ times, until: now + hours * HOUR })
      now += hours * HOUR - 1
      expect(bans.has('liar')).toBe(true)
      now += 1
      expect(bans.has('liar')).toBe(false)
      expect(bans.list()).toEqual([])
    }
    expect(bans.add('liar', MAX_BAN_MS, 'again').until).toBe(now + MAX_BAN_MS)
  })

  it('is not made shorter by another one', () => {
    const bans = new Bans({ now: () => 0 })
    bans.add('liar', 10 * HOUR, 'a great lie')
    expect(bans.add('liar', 1, 'a small one').until).toBe(10 * HOUR)
  })

  it('outlives a restart, with the number of those before it', () => {
    const store = new MemoryBanStore()
    let now = 0
    new Bans({ store, now: () => now }).add('liar', HOUR, 'it lied')
    const after = new Bans({ store, now: () => now })
    expect(after.list()).toEqual([{ peerId: 'liar', reason: 'it lied', since: 0, until: HOUR, times: 1 }])
    now = 2 * HOUR
    expect(new Bans({ store, now: () => now }).add('liar', HOUR, 'again').times).toBe(2)
  })

  it('of a time to come, made while the clock was ahead, lasts no longer than it was made for', () => {
    const store = new MemoryBanStore()
    let now = 1000 * HOUR
    new Bans({ store, now: () => now }).add('liar', HOUR, 'it lied')
    now = 0
    const after = new Bans({ store, now: () => now })
    expect(after.has('liar')).toBe(true)
    expect(store.list()).toMatchObject([{ since: 0, until: HOUR, times: 1 }])
    now = HOUR
    expect(after.has('liar')).toBe(false)
  })

  it('is forgotten in the end', () => {
    const store = new MemoryBanStore()
    let now = 0
    const bans = new Bans({ store, now: () => now })
    bans.add('liar', HOUR, 'it lied')
    now = HOUR + BAN_MEMORY_MS
    bans.add('other', HOUR, 'it lied too')
    expect([...store.kept.keys()]).toEqual(['other'])
    expect(bans.add('liar', HOUR, 'it lied').times).toBe(1)
  })

  it('can be lifted, once', () => {
    const store = new MemoryBanStore()
    const bans = new Bans({ store, now: () => 0 })
    bans.add('liar', HOUR, 'it lied')
    expect(bans.lift('liar')).toMatchObject({ reason: 'it lied' })
    expect(bans.has('liar')).toBe(false)
    expect(store.kept.size).toBe(0)
    expect(bans.lift('liar')).toBeUndefined()
    expect(bans.add('liar', HOUR, 'it lied').times).toBe(1)
  })
})

describe('the gate', () => {
  it.each([
    ['nobody is listed', { allow: [], deny: [] }, ['a', 'b', 'c']],
    ['some are denied', { allow: [], deny: ['a'] }, ['b', 'c']],
    ['some are allowed', { allow: ['a', 'b'], deny: [] }, ['a', 'b']],
    ['one is in both lists', { allow: ['a', 'b'], deny: ['b'] }, ['a']],
  ])('lets the right ones in where %s', (_what, lists, let_in) => {
    const gate = new Gate(new Bans(), lists)
    expect(['a', 'b', 'c'].filter(peerId => !gate.refuses(peerId))).toEqual(let_in)
  })

  it('does not let the banned in because they are allowed', () => {
    const bans = new Bans()
    const gate = new Gate(bans, { allow: ['a'], deny: [] })
    bans.add('a', HOUR, 'it lied')
    expect(gate.refuses('a')).toBe(true)
    bans.lift('a')
    expect(gate.refuses('a')).toBe(false)
    gate.setLists({ allow: [], deny: ['a'] })
    expect(gate.refuses('a')).toBe(true)
  })
})

describe('the limits of a peer', () => {
  it('are its own, until all together are at theirs', () => {
    const limits = new PeerLimits({ perPeer: 2, inAll: 3 })
    const [first, second] = [limits.admit('a'), limits.admit('a')]
    expect(limits.admit('a')).toBeUndefined()
    expect(limits.admit('b')).toBeTypeOf('function')
    expect(limits.admit('b')).toBeUndefined()
    first?.()
    first?.()
    expect(limits.admit('b')).toBeTypeOf('function')
    expect(limits.admit('a')).toBeUndefined()
    second?.()
    expect(limits.admit('a')).toBeTypeOf('function')
  })

  it('refill as time goes by, for requests and for the DHT apart', () => {
    let now = 0
    const limits = new PeerLimits({ requests: { burst: 3, perSecond: 2 }, dhtMessages: { burst: 1, perSecond: 1 }, now: () => now })
    const ask = (): boolean => {
      const release = limits.admit('a')
      release?.()
      return release !== undefined
    }
    expect([ask(), ask(), ask(), ask()]).toEqual([true, true, true, false])
    expect([limits.admitDht('a'), limits.admitDht('a'), limits.admitDht('b')]).toEqual([true, false, true])
    now = 1000
    expect([ask(), ask(), ask()]).toEqual([true, true, false])
    limits.forgetIdle()
    expect(ask()).toBe(false)
    now = 60_000
    limits.forgetIdle()
    expect([ask(), ask(), ask(), ask()]).toEqual([true, true, true, false])
  })
})
