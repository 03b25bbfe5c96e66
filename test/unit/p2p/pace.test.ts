import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WIRE_BUFFER_BYTES } from '../../../src/limits.ts'
import { NO_LIMITS, Paces, TokenBucket } from '../../../src/p2p/pace.ts'

const MIB = 1024 * 1024
const { signal } = new AbortController()

/** A clock that stands still until somebody sleeps; sleepers wake in order, each late by what `late` says. */
class FakeTime {
  now = 0
  readonly #sleepers: { at: number, wake: () => void }[] = []

  sleep(ms: number, late = 0): Promise<void> {
    return new Promise(resolve => { this.#sleepers.push({ at: this.now + ms + late, wake: resolve }) })
  }

  /** Lets all that happens until the time happen. */
  async run(until: number): Promise<void> {
    for (;;) {
      await new Promise(resolve => { setImmediate(resolve) })
      const next = this.#sleepers.toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > until) break
      this.#sleepers.splice(this.#sleepers.indexOf(next), 1)
      this.now = Math.max(this.now, next.at)
      next.wake()
    }
    this.now = until
  }
}

/** Bytes that each of the peers has sent after ten seconds, each over as many streams. */
async function sentIn10Seconds(limits: Partial<typeof NO_LIMITS>, peers: number, streams: number, late: () => number = () => 0): Promise<number[]> {
  const time = new FakeTime()
  const paces = new Paces({ ...NO_LIMITS, ...limits }, { now: () => time.now, sleep: ms => time.sleep(ms, late()) })
  const sent = Array.from({ length: peers }, () => 0)
  for (let peer = 0; peer < peers; peer++) {
    const pace = paces.of(`peer-${peer}`)
    for (let stream = 0; stream < streams; stream++) {
      void (async () => {
        while (time.now < 10_000) {
          await pace.sending(WIRE_BUFFER_BYTES, signal)
          // Where nothing is waited for, the wire takes its time.
          await time.sleep(0.1)
          if (time.now <= 10_000) sent[peer] = (sent[peer] ?? 0) + WIRE_BUFFER_BYTES
        }
      })()
    }
  }
  await time.run(10_000)
  return sent
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)

describe('a limit', () => {
  it.each([[128 * 1024, 1], [MIB, 1], [10 * MIB, 8], [100 * MIB, 16]])('of %d bytes per second holds within a tenth over %d streams', async (rate, streams) => {
    const total = sum(await sentIn10Seconds({ upload: rate }, 1, streams))
    expect(total / (10 * rate)).toBeGreaterThan(0.95)
    expect(total / (10 * rate)).toBeLessThan(1.1)
  })

  it('holds when timers are late', async () => {
    let turn = 0
    const total = sum(await sentIn10Seconds({ upload: 10 * MIB }, 2, 4, () => turn++ % 7 * 20))
    expect(total / (100 * MIB)).toBeGreaterThan(0.9)
    expect(total / (100 * MIB)).toBeLessThan(1.1)
  })

  it('of all peers is shared by them, and that of each one holds besides', async () => {
    const shared = await sentIn10Seconds({ upload: 8 * MIB }, 4, 2)
    for (const bytes of shared) expect(bytes / (20 * MIB)).toBeCloseTo(1, 1)
    const [one = 0, other = 0] = await sentIn10Seconds({ upload: 100 * MIB, uploadPerPeer: MIB }, 2, 3)
    for (const bytes of [one, other]) expect(bytes / (10 * MIB)).toBeCloseTo(1, 1)
  })

  it('in one direction is none in the other, and no limit waits for nothing', () => {
    const pace = new Paces({ ...NO_LIMITS, download: MIB }, { now: () => 0 }).of('peer')
    expect(pace.sending(1000 * MIB, signal)).toBeUndefined()
    expect(pace.taking(MIB, signal)).toBeInstanceOf(Promise)
  })

  it.each([['upload', 'sending'], ['download', 'taking'], ['uploadPerPeer', 'sending'], ['downloadPerPeer', 'taking']] as const)('of %s holds back %s alone, from the start and when it is set anew for what goes on', (limit, way) => {
    const other = way === 'sending' ? 'taking' : 'sending'
    const slept: number[] = []
    const init = { now: () => 0, sleep: (ms: number) => { slept.push(Math.round(ms)); return Promise.resolve() } }
    const limits = { ...NO_LIMITS, [limit]: MIB }
    const limited = new Paces(limits, init).of('peer')
    void limited[way](3 * MIB, signal)
    expect(limited[other](3 * MIB, signal)).toBeUndefined()
    const paces = new Paces(NO_LIMITS, init)
    const pace = paces.of('peer')
    expect(pace[way](MIB, signal)).toBeUndefined()
    paces.configure(limits)
    void pace[way](2 * MIB, signal)
    paces.configure(NO_LIMITS)
    expect(pace[way](MIB, signal)).toBeUndefined()
    expect(slept).toEqual([3000, 2000])
  })

  it('ends the wait of what is given up', async () => {
    const given = new AbortController()
    const waiting = new Paces({ ...NO_LIMITS, upload: 1 }).of('peer').sending(MIB, given.signal)
    given.abort()
    await waiting
  })
})

describe('a bucket', () => {
  it('saves up no more than its burst while nobody takes', () => {
    let now = 0
    const bucket = new TokenBucket(MIB, () => now)
    now = 60_000
    expect(Array.from({ length: 4 }, () => bucket.take(256 * 1024))).toEqual([0, 250, 500, 750])
  })

  it('never lets more through than its rate and a burst, whatever is asked when', () => {
    fc.assert(fc.property(fc.integer({ min: 1000, max: 1e9 }), fc.array(fc.tuple(fc.oneof(fc.nat(500), fc.nat(100_000)), fc.nat(WIRE_BUFFER_BYTES)), { minLength: 1, maxLength: 40 }), (rate, takes) => {
      let now = 0
      const bucket = new TokenBucket(rate, () => now)
      const gone: { at: number, bytes: number }[] = []
      for (const [pause, bytes] of takes) {
        now += pause
        gone.push({ at: now + bucket.take(bytes), bytes })
      }
      const burst = Math.max(rate / 4, WIRE_BUFFER_BYTES)
      // Also after a rest, in which nothing is saved up but the burst.
      for (const [index, { at: from }] of gone.entries()) {
        for (const { at: to } of gone.slice(index)) {
          const within = sum(gone.filter(({ at }) => at >= from && at <= to).map(({ bytes }) => bytes))
          expect(within).toBeLessThanOrEqual((to - from) * rate / 1000 + burst + 1)
        }
      }
    }))
  })
})
