import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkSet, chunksOf } from '../../../src/image/chunk-set.ts'
import { type Action, Scheduler } from '../../../src/tasks/swarm/scheduler.ts'
import { TUNING } from '../../../src/tasks/swarm/tuning.ts'

const KIB = 1024
const COUNT = 400
const chunks = { count: COUNT, length: () => 64 * KIB }

type WantAction = Extract<Action, { kind: 'want' }>

function wants(actions: readonly Action[], peerId?: string): WantAction[] {
  return actions.filter(action => action.kind === 'want').filter(action => peerId === undefined || action.peerId === peerId)
}

/** Delivers one chunk, so that the peer is proven and its speed known. */
function warmUp(scheduler: Scheduler, peerId: string, milliseconds = 10): void {
  const [want] = wants(scheduler.decide(0), peerId)
  if (want === undefined) throw new Error('nothing was asked for')
  const [chunk = 0] = chunksOf(want.runs)
  scheduler.heard(peerId, 64 * KIB, milliseconds)
  scheduler.arrived(peerId, want.id, chunk)
  scheduler.ended(peerId, want.id, 'done')
}

describe('what a peer is asked for', () => {
  it('is one chunk until it has proven to send right ones, then more than its round trip', () => {
    const scheduler = new Scheduler(chunks, { seed: 1 })
    scheduler.joined('A')
    scheduler.hasAll('A')
    const [first] = wants(scheduler.decide(0))
    expect([...chunksOf(first?.runs ?? [])]).toHaveLength(1)
    expect(scheduler.decide(1)).toEqual([])
    scheduler.heard('A', 64 * KIB, 10)
    scheduler.arrived('A', first?.id ?? 0, firstOf(first))
    scheduler.ended('A', first?.id ?? 0, 'done')
    const asked = wants(scheduler.decide(10)).reduce((sum, { runs, choice }) => sum + (choice ?? [...chunksOf(runs)].length * 64 * KIB), 0)
    expect(asked).toBeGreaterThan(1024 * KIB)
    expect(asked).toBeLessThanOrEqual(16 * 1024 * KIB)
  })

  it('is rare before it is common', () => {
    const scheduler = new Scheduler(chunks, { seed: 1 })
    for (const peer of ['A', 'B', 'C']) {
      scheduler.joined(peer)
      scheduler.has(peer, { first: 0, count: 200 })
    }
    scheduler.has('B', { first: 200, count: 10 })
    scheduler.has('C', { first: 200, count: 10 })
    const [want] = wants(scheduler.decide(0), 'C')
    for (const chunk of chunksOf(want?.runs ?? [])) expect(chunk).toBeGreaterThanOrEqual(200)
  })

  it('lies in a window that moves through the image, and elsewhere in it on each host', () => {
    const large = { count: 40_000, length: () => 64 * KIB }
    const firsts = Array.from({ length: 16 }, (_, seed) => {
      const scheduler = new Scheduler(large, { seed })
      scheduler.joined('A')
      scheduler.hasAll('A')
      return firstOf(wants(scheduler.decide(0))[0])
    })
    expect(Math.max(...firsts)).toBeLessThan(TUNING.sample)
    expect(new Set(firsts).size).toBeGreaterThan(12)
    const half = new ChunkSet(large.count)
    half.addRun({ first: 0, count: 20_000 })
    const later = new Scheduler(large, { seed: 1, proven: half })
    later.joined('A')
    later.hasAll('A')
    const next = firstOf(wants(later.decide(0))[0])
    expect(next).toBeGreaterThanOrEqual(20_000)
    expect(next).toBeLessThan(20_000 + TUNING.sample)
  })

  it('is, of one that has all, what is rare beyond the window where all of that is common', () => {
    const large = { count: 40_000, length: () => 64 * KIB }
    const scheduler = new Scheduler(large, { seed: 1 })
    for (const peer of ['A', 'B', 'C', 'seed']) scheduler.joined(peer)
    for (const peer of ['A', 'B', 'C']) scheduler.has(peer, { first: 0, count: 20_000 })
    scheduler.hasAll('seed')
    const actions = scheduler.decide(0)
    expect(firstOf(wants(actions, 'seed')[0])).toBeGreaterThanOrEqual(20_000)
    for (const peer of ['A', 'B', 'C']) expect(firstOf(wants(actions, peer)[0])).toBeLessThan(TUNING.sample + 8)
  })

  it('is named once where few rare chunks are left, from wherever they are looked for', () => {
    const large = { count: 2000, length: () => 64 * KIB }
    const middle = new ChunkSet(large.count)
    middle.addRun({ first: 600, count: 1380 })
    const scheduler = new Scheduler(large, { seed: 1, proven: middle })
    for (const peer of ['A', 'B', 'C', 'seed']) scheduler.joined(peer)
    for (const peer of ['A', 'B', 'C']) scheduler.has(peer, { first: 0, count: 1980 })
    scheduler.hasAll('seed')
    warmUp(scheduler, 'seed')
    const [want] = wants(scheduler.decide(20), 'seed')
    const named = [...chunksOf(want?.runs ?? [])]
    expect(Math.min(...named)).toBeGreaterThanOrEqual(1980)
    expect(named).toHaveLength(new Set(named).size)
    expect(named.length).toBeGreaterThan(1)
  })

  it('leaves a peer the choice among chunks that nobody else has, and frees the others', () => {
    const scheduler = new Scheduler(chunks, { seed: 1 })
    scheduler.joined('A')
    scheduler.hasAll('A')
    warmUp(scheduler, 'A', 500)
    const [want] = wants(scheduler.decide(500))
    const named = [...chunksOf(want?.runs ?? [])]
    expect(want?.choice).toBeLessThan(named.length * 64 * KIB / 2)
    scheduler.joined('B')
    scheduler.hasAll('B')
    scheduler.chose('A', want?.id ?? 0, [{ first: named[0] ?? 0, count: 1 }])
    scheduler.left('A')
    warmUp(scheduler, 'B', 1)
    for (let at = 0; at < 100; at++) {
      for (const { id, runs } of wants(scheduler.decide(2 + at))) {
        for (const chunk of chunksOf(runs)) {
          scheduler.heard('B', 64 * KIB, 2 + at)
          scheduler.arrived('B', id, chunk)
        }
        scheduler.ended('B', id, 'done')
      }
    }
    expect(scheduler.isDone).toBe(true)
  })

  it('is nothing while it is busy, and what it was asked for goes to others', () => {
    const scheduler = new Scheduler(chunks, { seed: 1 })
    for (const peer of ['A', 'B']) {
      scheduler.joined(peer)
      scheduler.has(peer, { first: 7, count: 1 })
    }
    const [want] = wants(scheduler.decide(0))
    expect(want?.peerId).toBe('A')
    scheduler.ended('A', want?.id ?? 0, 'busy')
    expect(wants(scheduler.decide(1)).map(({ peerId }) => peerId)).toEqual(['B'])
    scheduler.left('B')
    expect(scheduler.decide(2)).toEqual([])
    scheduler.ready('A')
    expect(wants(scheduler.decide(3))).toHaveLength(1)
  })

  it('is never again what it says that it does not have', () => {
    const scheduler = new Scheduler(chunks, { seed: 1, proven: only(chunks.count, chunk => chunk !== 7) })
    scheduler.joined('A')
    scheduler.hasAll('A')
    const [want] = wants(scheduler.decide(0))
    scheduler.ended('A', want?.id ?? 0, 'not-found')
    expect(scheduler.decide(10_000)).toEqual([])
  })
})

describe('a peer that stalls', () => {
  it('is replaced, and still may deliver', () => {
    const scheduler = new Scheduler(chunks, { seed: 1, proven: only(COUNT, chunk => chunk > 10) })
    scheduler.joined('A')
    scheduler.hasAll('A')
    warmUp(scheduler, 'A')
    const before = wants(scheduler.decide(20))
    scheduler.joined('B')
    scheduler.hasAll('B')
    expect(wants(scheduler.decide(1000), 'B')).toEqual([])
    expect(wants(scheduler.decide(4000), 'B')).toHaveLength(1)
    expect(wants(scheduler.decide(4000), 'A')).toEqual([])
    const [late] = [...chunksOf(before[0]?.runs ?? [])].reverse()
    scheduler.heard('A', 64 * KIB, 5000)
    expect(scheduler.arrived('A', before[0]?.id ?? 0, late ?? 0)).toBe(true)
  })

  it('is asked for one chunk again when it has taken back what it owes', () => {
    const scheduler = new Scheduler(chunks, { seed: 1 })
    scheduler.joined('A')
    scheduler.hasAll('A')
    warmUp(scheduler, 'A')
    const owed = wants(scheduler.decide(20))
    expect(wants(scheduler.decide(4000))).toEqual([])
    for (const { id } of owed) scheduler.ended('A', id, 'busy')
    scheduler.ready('A')
    const again = wants(scheduler.decide(4001))
    expect(again).toHaveLength(1)
    expect([...chunksOf(again[0]?.runs ?? [])]).toHaveLength(1)
  })

  it('is asked for one chunk again when others have sent what it owes', () => {
    const scheduler = new Scheduler(chunks, { seed: 1, proven: only(COUNT, chunk => chunk > 30) })
    scheduler.joined('A')
    scheduler.has('A', { first: 0, count: 20 })
    warmUp(scheduler, 'A')
    const owed = wants(scheduler.decide(20)).flatMap(({ runs }) => [...chunksOf(runs)])
    scheduler.decide(4000)
    for (const chunk of owed) scheduler.found(chunk)
    scheduler.has('A', { first: 20, count: 11 })
    const again = wants(scheduler.decide(4001))
    expect(again).toHaveLength(1)
    expect([...chunksOf(again[0]?.runs ?? [])]).toHaveLength(1)
  })
})

describe('the end game', () => {
  it('asks a fast peer for what a slow one owes, and calls it off when it comes', () => {
    const scheduler = new Scheduler(chunks, { seed: 1, proven: only(COUNT, chunk => chunk >= 6) })
    for (const peer of ['slow', 'fast']) scheduler.joined(peer)
    scheduler.hasAll('slow')
    const [slow] = wants(scheduler.decide(0))
    scheduler.heard('slow', 64 * KIB, 2000)
    scheduler.arrived('slow', slow?.id ?? 0, firstOf(slow))
    const [more] = wants(scheduler.decide(2000))
    const chosen = [...chunksOf(more?.runs ?? [])].slice(0, 2)
    scheduler.chose('slow', more?.id ?? 0, chosen.map(each => ({ first: each, count: 1 })))
    scheduler.hasAll('fast')
    // Two are owed by the slow one; the fast one proves itself with the rest and then helps.
    let duplicates = 0
    let cancelled = 0
    for (let now = 2001; now < 2300 && !scheduler.isDone; now += 5) {
      for (const action of scheduler.decide(now)) {
        if (action.kind === 'cancel' && action.peerId === 'slow') cancelled += [...chunksOf(action.runs)].length
        if (action.kind === 'cancel' || action.peerId !== 'fast') continue
        for (const chunk of chunksOf(action.runs)) {
          scheduler.heard('fast', 64 * KIB, now + 1)
          scheduler.arrived('fast', action.id, chunk)
          duplicates += 1
        }
        scheduler.ended('fast', action.id, 'done')
      }
    }
    expect(scheduler.isDone).toBe(true)
    for (const action of scheduler.decide(2301)) if (action.kind === 'cancel') cancelled += [...chunksOf(action.runs)].length
    expect(duplicates).toBe(5)
    expect(cancelled).toBe(2)
  })
})

describe('whatever peers do', () => {
  const step = fc.tuple(fc.constantFrom('have', 'all', 'deliver', 'busy', 'ready', 'not-found', 'done', 'leave', 'wait'), fc.nat(3), fc.nat(COUNT - 1))

  it('asks a peer only for missing chunks that it has, and never twice for one', () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), fc.integer(), (steps, seed) => {
      const world = new World(seed)
      for (const [kind, peer, chunk] of steps) world.step(kind, `peer ${peer}`, chunk)
    }), { numRuns: 200 })
  })

  it('ends when one honest peer has all', () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), fc.integer(), (steps, seed) => {
      const world = new World(seed)
      for (const [kind, peer, chunk] of steps) world.step(kind, `peer ${peer}`, chunk)
      world.finish()
      expect(world.scheduler.isDone).toBe(true)
    }), { numRuns: 100 })
  })
})

it('costs the same for an event however many chunks there are', () => {
  const spent = [4096, 4_000_000].map(count => {
    let looked = 0
    const scheduler = new Scheduler({ count, length: () => { looked += 1; return 64 * KIB } }, { seed: 1 })
    scheduler.joined('A')
    scheduler.hasAll('A')
    warmUp(scheduler, 'A')
    scheduler.decide(20)
    return looked
  })
  expect(spent[1]).toBe(spent[0])
})

function firstOf(want: WantAction | undefined): number {
  return want?.runs[0]?.first ?? -1
}

function only(count: number, isIn: (chunk: number) => boolean): ChunkSet {
  const set = new ChunkSet(count)
  for (let chunk = 0; chunk < count; chunk++) if (isIn(chunk)) set.add(chunk)
  return set
}

/** Peers that do anything at any time, and the rules that hold nevertheless. */
class World {
  readonly scheduler: Scheduler
  now = 0
  readonly #have = new Map<string, Set<number>>()
  readonly #asked = new Map<string, Map<number, Set<number>>>()
  readonly #arrived = new Set<number>()

  constructor(seed: number) {
    this.scheduler = new Scheduler(chunks, { seed })
  }

  step(kind: string, peer: string, chunk: number): void {
    this.now += kind === 'wait' ? 5000 : 1
    this.#join(peer)
    const [open] = this.#asked.get(peer) ?? []
    if (kind === 'have') this.#learn(peer, [chunk], () => { this.scheduler.has(peer, { first: chunk, count: 1 }) })
    else if (kind === 'all') this.#learn(peer, Array.from({ length: COUNT }, (_, each) => each), () => { this.scheduler.hasAll(peer) })
    else if (kind === 'ready') this.scheduler.ready(peer)
    else if (kind === 'leave') this.#leave(peer)
    else if (kind === 'deliver' && open !== undefined) this.#deliver(peer, ...open)
    else if ((kind === 'busy' || kind === 'not-found' || kind === 'done') && open !== undefined) this.#end(peer, kind, ...open)
    this.#decide()
  }

  finish(): void {
    this.#join('honest')
    this.#learn('honest', Array.from({ length: COUNT }, (_, each) => each), () => { this.scheduler.hasAll('honest') })
    for (let round = 0; round < 2000 && !this.scheduler.isDone; round++) {
      this.now += 100
      this.#decide()
      for (const [id, pending] of this.#asked.get('honest') ?? []) {
        for (const chunk of pending) this.#deliverOne('honest', id, chunk)
        this.#end('honest', 'done', id, pending)
      }
    }
  }

  #join(peer: string): void {
    if (this.#have.has(peer)) return
    this.#have.set(peer, new Set())
    this.#asked.set(peer, new Map())
    this.scheduler.joined(peer)
  }

  #leave(peer: string): void {
    this.#have.delete(peer)
    this.#asked.delete(peer)
    this.scheduler.left(peer)
  }

  #learn(peer: string, learnt: number[], tell: () => void): void {
    for (const chunk of learnt) this.#have.get(peer)?.add(chunk)
    tell()
  }

  #deliver(peer: string, id: number, pending: Set<number>): void {
    const [chunk] = pending
    if (chunk !== undefined) this.#deliverOne(peer, id, chunk)
  }

  #deliverOne(peer: string, id: number, chunk: number): void {
    this.#asked.get(peer)?.get(id)?.delete(chunk)
    this.scheduler.heard(peer, 64 * KIB, this.now)
    expect(this.scheduler.arrived(peer, id, chunk)).toBe(!this.#arrived.has(chunk))
    this.#arrived.add(chunk)
  }

  #end(peer: string, kind: 'busy' | 'not-found' | 'done', id: number, pending: Set<number>): void {
    if (kind === 'not-found') for (const chunk of pending) this.#have.get(peer)?.delete(chunk)
    this.#asked.get(peer)?.delete(id)
    this.scheduler.ended(peer, id, kind)
  }

  #decide(): void {
    for (const action of this.scheduler.decide(this.now)) {
      const asked = this.#asked.get(action.peerId)
      if (action.kind === 'cancel') {
        for (const chunk of chunksOf(action.runs)) asked?.get(action.id)?.delete(chunk)
        continue
      }
      const named = [...chunksOf(action.runs)]
      for (const chunk of named) {
        expect(this.#have.get(action.peerId)?.has(chunk)).toBe(true)
        expect(this.#arrived.has(chunk)).toBe(false)
        for (const pending of asked?.values() ?? []) expect(pending.has(chunk)).toBe(false)
      }
      const chosen = action.choice === undefined ? named : named.slice(0, Math.max(1, Math.floor(action.choice / (64 * KIB))))
      asked?.set(action.id, new Set(chosen))
      this.scheduler.chose(action.peerId, action.id, [...chosen].map(first => ({ first, count: 1 })))
    }
  }
}
