import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { DIAL_TIMEOUT_MS, MAX_KNOWN_PROVIDERS, MAX_SWARM_SOURCES, MAX_TOLD_FAILURES } from '../../../src/limits.ts'
import type { Provider } from '../../../src/p2p/router.ts'
import type { TaskContext } from '../../../src/tasks/context.ts'
import { Providers } from '../../../src/tasks/providers.ts'
import { expectFailure, failureOf } from '../../helpers/failure.ts'
import { someHash } from '../../helpers/images.ts'

const one = { peerId: 'one', addresses: [] }
const two = { peerId: 'two', addresses: [] }

function make(found: readonly Provider[] | (() => AsyncIterable<Provider>), { waitMs = 0, signal = new AbortController().signal, banned = [] as string[], connected = [] as string[] } = {}): Providers {
  const find = typeof found === 'function' ? found : async function* () { await Promise.resolve(); yield* found }
  const node = { router: { find }, connectedPeers: () => new Set(connected), isBanned: (peerId: string) => banned.includes(peerId) } as unknown as TaskContext['node']
  return new Providers({ node }, { narHash: someHash(1), waitMs, signal })
}

describe('the providers of one image', () => {
  it('are given one after another, and then it is over', async () => {
    const providers = make([one, two])
    expect(await providers.next()).toBe(one)
    providers.failed(one, 'it is slow')
    expect(await providers.next()).toBe(two)
    providers.failed(two, 'it is gone')
    await expectFailure(providers.next(), 'no-provider', /one: it is slow; two: it is gone within 0 s/)
    expect(providers.shares().map(({ peerId, outcome }) => [peerId, outcome])).toEqual([['one', 'failed'], ['two', 'failed']])
  })

  it('become known while the first one is tried', async () => {
    const providers = make([one, two])
    expect(await providers.next()).toBe(one)
    await vi.waitFor(() => { expect(providers.hasSpare()).toBe(true) })
    expect(await providers.next()).toBe(two)
    expect(providers.hasSpare()).toBe(false)
  })

  it('are without those that are banned or excluded, who are named', async () => {
    const providers = make([one, two], { banned: ['one'] })
    expect(await providers.next()).toBe(two)
    providers.exclude(['two'])
    await expectFailure(providers.next(), 'no-provider', /two is banned/)
    providers.startOver()
    expect(await providers.hasNext()).toBe(false)
  })

  it('are tried again while there is time, and the time begins anew with progress', async () => {
    const providers = make([one], { waitMs: 600 })
    expect(await providers.next()).toBe(one)
    expect(await providers.next()).toBe(one)
    providers.progressed()
    expect(await providers.next()).toBe(one)
  })

  it('are no longer waited for when the work is given up', async () => {
    const work = new AbortController()
    const reason = new NarvikError('interrupted', 'given up')
    const providers = make([], { waitMs: 60_000, signal: work.signal })
    const failed = failureOf(providers.next())
    work.abort(reason)
    expect(await failed).toBe(reason)
  })

  it('that the router can not find fail with its reason', async () => {
    const reason = new Error('no network')
    // eslint-disable-next-line require-yield -- it fails before
    const providers = make(async function* () { await Promise.resolve(); throw reason })
    expect(await failureOf(providers.next())).toBe(reason)
  })

  it('are those that are connected first, then those that have signed, then the others', async () => {
    const signed = { peerId: 'signed', addresses: [], record: { narHash: someHash(1), narSize: 1, manifestDigest: null } }
    const both = { ...signed, peerId: 'both' }
    const providers = make([one, two, signed, both], { connected: ['two', 'both'] })
    await providers.hasNext()
    await vi.waitFor(() => { expect(providers.hasSpare()).toBe(true) })
    const given: string[] = []
    for (let count = 0; count < 4; count++) given.push((await providers.next()).peerId)
    expect(given).toEqual(['both', 'two', 'signed', 'one'])
  })

  // Watches that the fleet is asked again though there are some to try (isLookUpDue), and that there is one look-up at a time.
  it('are looked for again while those that are known may be made up, and those that come are tried first', async () => {
    vi.useFakeTimers()
    onTestFinished(() => { vi.useRealTimers() })
    const invented = Array.from({ length: 100 }, (_, index) => ({ peerId: `invented-${index}`, addresses: [] }))
    let lookUps = 0
    const providers = make(async function* () {
      lookUps += 1
      await Promise.resolve()
      yield* invented
      if (lookUps > 1) yield two
    }, { waitMs: 60_000, connected: ['two'] })
    expect((await providers.next()).peerId).toBe('invented-0')
    expect((await providers.next()).peerId).toBe('invented-1')
    expect(lookUps).toBe(1)
    vi.advanceTimersByTime(10_000)
    expect(await providers.next()).toBe(two)
    expect(lookUps).toBe(2)
  })

  // Watches that a look-up that goes on is joined, and not made once more beside it (#lookUp).
  it('are looked for by one look-up at a time', async () => {
    const signed = { ...one, record: { narHash: someHash(1), narSize: 1, manifestDigest: null } }
    const end = Promise.withResolvers<undefined>()
    let lookUps = 0
    const providers = make(async function* () {
      lookUps += 1
      await Promise.resolve()
      yield signed
      await end.promise
      yield two
    }, { waitMs: 60_000 })
    expect(await providers.next()).toBe(signed)
    const next = providers.next()
    end.resolve(undefined)
    expect([await next, lookUps]).toEqual([two, 1])
  })

  // Watches that made-up ones come to an end when the time is up (LATE_PROVIDERS).
  it('that are made up are no longer tried when the time is up, but for a few', async () => {
    const invented = Array.from({ length: 100 }, (_, index) => ({ peerId: `invented-${index}`, addresses: [] }))
    const providers = make(invented)
    let tried = 0
    const failed = failureOf((async () => { for (;; tried++) providers.failed(await providers.next(), 'nobody is there') })())
    expect(await failed).toMatchObject({ code: 'no-provider' })
    expect(tried).toBe(4)
  })

  // Watches that those who have signed come to an end as well: an identity costs no more than a key (LATE_SIGNED_PROVIDERS).
  it('that are made up and sign are no longer tried when the time is up, but for one round of sources', async () => {
    const record = { narHash: someHash(1), narSize: 1, manifestDigest: null }
    const providers = make(Array.from({ length: 1000 }, (_, index) => ({ peerId: `signed-${index}`, addresses: [], record })))
    let tried = 0
    const failed = failureOf((async () => { for (;; tried++) providers.failed(await providers.next(), 'nobody is there') })())
    expect(await failed).toMatchObject({ code: 'no-provider' })
    expect(tried).toBe(MAX_SWARM_SOURCES)
  })

  // Watches that those that never answer, each of which takes as long as a dial may, are left when the time is long up (LATE_MS), and that then nobody is looked for any more (isLookUpDue).
  it.each([['made up', undefined], ['made up and sign', { narHash: someHash(1), narSize: 1, manifestDigest: null }]])('that are %s and never answer are no longer tried in a while', async (_what, record) => {
    vi.useFakeTimers()
    onTestFinished(() => { vi.useRealTimers() })
    let lookUps = 0
    const providers = make(async function* () {
      lookUps++
      await Promise.resolve()
      yield* Array.from({ length: 100 }, (_, index) => ({ peerId: `silent-${index}`, addresses: [], ...record && { record } }))
    })
    let tried = 0
    const failed = failureOf((async () => {
      for (;; tried++) {
        providers.failed(await providers.next(), 'it never answers')
        vi.advanceTimersByTime(DIAL_TIMEOUT_MS)
      }
    })())
    expect(await failed).toMatchObject({ code: 'no-provider' })
    expect([tried, lookUps]).toEqual([2, 1])
  })

  // Watches what is remembered and told of them, however many are made up (MAX_KNOWN_PROVIDERS, MAX_TOLD_FAILURES).
  it('that are made up without an end are neither all remembered nor all told of', async () => {
    const invented = Array.from({ length: 3 * MAX_KNOWN_PROVIDERS }, (_, index) => ({ peerId: `invented-${index}`, addresses: [] }))
    const providers = make(invented, { waitMs: 60_000 })
    for (let count = 0; count < MAX_KNOWN_PROVIDERS; count++) providers.failed(await providers.next(), 'nobody is there')
    expect(providers.hasSpare()).toBe(false)
    expect(providers.shares()).toHaveLength(MAX_TOLD_FAILURES)
  })
})
