import { describe, expect, it } from 'vitest'
import { crowd, LINK, someChunks } from '../../../bench/simulation/crowd.ts'
import type { HostInit, SimHost } from '../../../bench/simulation/host.ts'
import { IDEAL } from '../../../bench/simulation/nature.ts'
import { Simulation, type SimulationInit } from '../../../bench/simulation/simulation.ts'

const MIB = 1024 * 1024

/** A run over links that carry nothing but chunks, between hosts that are 20 ms from each other. */
function simulationOf({ hosts, ...init }: SimulationInit): Simulation {
  return new Simulation({ nature: IDEAL, hosts: hosts.map(host => ({ wayMs: 10, ...host })), ...init })
}

/** A crowd some of whose hosts are otherwise. */
function changed(change: (host: HostInit) => Partial<HostInit>, wayMs = 10): HostInit[] {
  return crowd({ count: 8, wayMs }).map(host => ({ ...host, ...change(host) }))
}

function receivers(simulation: Simulation): SimHost[] {
  return [...simulation.hosts.values()].filter(({ init }) => init.isSeed !== true)
}

describe('a flash crowd of one seed and eight hosts', () => {
  const chunks = someChunks(256 * MIB)
  const ideal = chunks.narSize / LINK.up

  it.each([[1, 5], [2, 20], [3, 50]])('ends little after the image fits through one link (seed %i, %i ms one way)', (seed, latencyMs) => {
    const simulation = simulationOf({ chunks, seed, hosts: crowd({ count: 8, wayMs: latencyMs / 2, seed }) })
    const last = simulation.run()
    expect(last / ideal).toBeLessThan(1.1)
    expect(simulation.host('seed').sent / chunks.narSize).toBeLessThan(1.15)
    const wasted = receivers(simulation).reduce((sum, host) => sum + host.wasted, 0)
    expect(wasted / (8 * chunks.narSize)).toBeLessThan(0.02)
  })

  it('runs exactly the same again', () => {
    const run = (seed: number): (number | string)[] => {
      const simulation = simulationOf({ chunks: someChunks(16 * MIB), seed, hosts: crowd({ count: 8, wayMs: 10 }) })
      return [simulation.run(), simulation.traceHash, ...[...simulation.hosts.values()].map(({ sent }) => sent)]
    }
    expect(run(5)).toEqual(run(5))
    expect(run(5)).not.toEqual(run(6))
  })

  it('is not held up by a host with a narrow link, nor by few places', () => {
    const narrow = simulationOf({ chunks, hosts: changed(({ name }) => name === 'host 3' ? { link: { up: 300, down: 6250 } } : {}) })
    expect(narrow.run() / ideal).toBeLessThan(1.25)
    const few = simulationOf({ chunks, hosts: crowd({ count: 8, wayMs: 10 }), places: 4 })
    expect(few.run() / ideal).toBeLessThan(1.25)
    expect(few.host('seed').sent / chunks.narSize).toBeLessThan(1.5)
  })

  it('goes on when one of the hosts stalls, and when the seed does after the image is out', () => {
    const stalled = simulationOf({ chunks, hosts: changed(({ name }) => name === 'host 3' ? { stallsAt: 15_000 } : {}) })
    expect(stalled.run() / ideal).toBeLessThan(1.4)
    const orphaned = simulationOf({ chunks, hosts: changed(({ name }) => name === 'seed' ? { stallsAt: 1.1 * ideal } : {}) })
    expect(orphaned.run() / ideal).toBeLessThan(1.25)
  })

  it('bans a liar after one chunk, on each host', () => {
    const simulation = simulationOf({ chunks, hosts: changed(({ name }) => name === 'host 3' ? { lies: true } : {}) })
    expect(simulation.run() / ideal).toBeLessThan(1.4)
    for (const host of receivers(simulation)) expect([...host.banned]).toEqual(host.name === 'host 3' ? [] : ['host 3'])
  })
})

describe('other shapes', () => {
  const chunks = someChunks(64 * MIB)
  const ideal = chunks.narSize / LINK.up

  it('lets the end of a chain finish with the middle', () => {
    const hosts: HostInit[] = [
      { name: 'A', link: LINK, isSeed: true },
      { name: 'B', link: LINK },
      { name: 'C', link: LINK },
    ]
    const simulation = simulationOf({ chunks, hosts, reaches: (one, other) => one === 'B' || other === 'B' })
    const last = simulation.run()
    expect(last / (simulation.host('B').doneAt ?? 0)).toBeLessThan(1.1)
    expect(last / ideal).toBeLessThan(1.1)
    expect(simulation.host('C').wasted).toBe(0)
  })

  it('takes from each of several full hosts what its link gives', () => {
    const seeds = [1000, 2000, 3000].map((up, index): HostInit => ({ name: `seed ${index}`, link: { up, down: 1 }, isSeed: true }))
    const simulation = simulationOf({ chunks, hosts: [...seeds, { name: 'host', link: LINK }] })
    expect(simulation.run() / (chunks.narSize / 6000)).toBeLessThan(1.1)
    expect(simulation.host('host').wasted / chunks.narSize).toBeLessThan(0.02)
  })

  it('needs nobody but the one it reaches', () => {
    const simulation = simulationOf({ chunks, hosts: [{ name: 'seed', link: LINK, isSeed: true }, { name: 'host', link: LINK }] })
    expect(simulation.run() / ideal).toBeLessThan(1.05)
    expect(simulation.host('seed').sent).toBe(chunks.narSize)
  })

  it('leaves a peer that stalls with what nobody was asked for', () => {
    const seeds = [0, 1, 2, 3].map((index): HostInit => ({ name: `seed ${index}`, link: LINK, isSeed: true, ...(index === 0 && { stallsAt: 2000 }) }))
    const simulation = simulationOf({ chunks, hosts: [...seeds, { name: 'host', link: LINK }] })
    expect(simulation.run() / ideal).toBeLessThan(1.4)
  })

  it('shares a host that has few places among many', () => {
    const hosts = Array.from({ length: 6 }, (_, index): HostInit => ({ name: `host ${index}`, link: LINK }))
    const simulation = simulationOf({ chunks: someChunks(32 * MIB), places: 2, hosts: [{ name: 'seed', link: LINK, isSeed: true }, ...hosts], reaches: (one, other) => one === 'seed' || other === 'seed' })
    expect(simulation.run() / (6 * 32 * MIB / LINK.up)).toBeLessThan(1.1)
  })
})
