import { describe, expect, it } from 'vitest'
import { crowd, cutOff, LINK, someChunks, withChurn } from '../../../bench/simulation/crowd.ts'
import { ESTIMATED } from '../../../bench/simulation/nature.ts'
import { Simulation, type SimulationInit } from '../../../bench/simulation/simulation.ts'

const chunks = someChunks(16 * 1024 * 1024)
const IDEAL_MS = chunks.narSize / LINK.up
const nature = { ...ESTIMATED, stepMs: 10 }

function run(init: Omit<SimulationInit, 'chunks' | 'nature'> & { readonly chunks?: SimulationInit['chunks'] }): { last: number, simulation: Simulation } {
  const simulation = new Simulation({ chunks, nature, ...init })
  return { last: simulation.run(), simulation }
}

/** Bytes that came and were not needed, a part of the image for each host. */
function wastedBy({ hosts }: Simulation): number {
  return [...hosts.values()].reduce((sum, { wasted }) => sum + wasted, 0) / chunks.narSize / hosts.size
}

function seedSent(simulation: Simulation): number {
  return simulation.host('seed').sent / chunks.narSize
}

describe('a crowd of more hosts than one of them asks', () => {
  it('shares what any of it has, though those that came together know each other best', () => {
    const { last, simulation } = run({ chunks: someChunks(48 * 1024 * 1024), hosts: crowd({ count: 64, wayMs: 10 }) })
    expect(last / (3 * IDEAL_MS)).toBeLessThan(1.65)
    expect(seedSent(simulation) / 3).toBeLessThan(1.5)
    expect(wastedBy(simulation) / 3).toBeLessThan(0.01)
  })

  it('is replayed by the number of its run, and by no other', () => {
    const trace = (seed: number): string => {
      const { simulation } = run({ chunks: someChunks(4 * 1024 * 1024), hosts: crowd({ count: 40, wayMs: 10 }), seed })
      return simulation.traceHash
    }
    expect(trace(7)).toBe(trace(7))
    expect(trace(7)).not.toBe(trace(8))
  })
})

describe('hosts that come and go', () => {
  it('all have the image in the end, but for those that leave for good', () => {
    const all = crowd({ count: 50, wayMs: 10 })
    const { last, simulation } = run({ hosts: withChurn(all, { withinMs: 4000, rest: 0.25, leave: 0.15, late: 0.15, offMs: 4000, seed: 3 }) })
    expect(simulation.wanting.length).toBeLessThan(50)
    for (const host of simulation.wanting) expect(host.have.size).toBe(chunks.count)
    // The last ones come back, or begin, when the others are nearly done.
    expect(last - 9000).toBeLessThan(1.5 * IDEAL_MS)
    expect(seedSent(simulation)).toBeLessThan(2.5)
    expect(wastedBy(simulation)).toBeLessThan(0.05)
  })

  it('keep what they have proven', () => {
    const off = { from: 3000, until: 6000 }
    const { simulation } = run({ hosts: crowd({ count: 20, wayMs: 10 }).map(host => host.name === 'host 3' ? { ...host, absences: [off] } : host) })
    const host = simulation.host('host 3')
    expect(host.log).toHaveLength(chunks.count)
    expect(new Set(host.log).size).toBe(chunks.count)
  })
})

describe('a network that falls apart', () => {
  const [from, until] = [2000, 9000]

  it('has both parts go on with what they have, and end soon after it is whole again', () => {
    const { last, simulation } = run({ hosts: crowd({ count: 50, wayMs: 10 }), cuts: [cutOff(3, from, until)] })
    const isBeyond = (name: string): boolean => name !== 'seed' && Number(name.slice(5)) % 3 === 0
    const [beyond, here] = [simulation.wanting.filter(({ name }) => isBeyond(name)), simulation.wanting.filter(({ name }) => !isBeyond(name))]
    expect(Math.max(...here.map(({ doneAt = Infinity }) => doneAt))).toBeLessThan(until)
    expect(Math.min(...beyond.map(({ doneAt = Infinity }) => doneAt))).toBeGreaterThan(until)
    expect(last - until).toBeLessThan(2.5 * IDEAL_MS)
    expect(seedSent(simulation)).toBeLessThan(3)
    expect(wastedBy(simulation)).toBeLessThan(0.1)
  })
})

describe('the links', () => {
  it('carry no more than they can, and are full where somebody waits', () => {
    const { last, simulation } = run({ hosts: crowd({ count: 30, wayMs: 10 }) })
    for (const { sent, init } of simulation.hosts.values()) expect(sent).toBeLessThan(1.01 * last * init.link.up * nature.goodput)
    for (const { doneAt = 0, init } of simulation.wanting) expect(doneAt - (init.startsAt ?? 0)).toBeGreaterThan(0.99 * IDEAL_MS / nature.goodput)
  })
})
