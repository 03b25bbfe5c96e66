import { describe, expect, it } from 'vitest'
import { type HostInit, type LinkSpeed, type SimHost, Simulation, someChunks } from '../../helpers/swarm-sim.ts'

const MIB = 1024 * 1024
/** 50 Mbit/s each way. */
const LINK: LinkSpeed = { up: 6250, down: 6250 }

/** A seed and hosts that all want what it has, within a second, and all ask each other. */
function crowd(count: number, change: (host: HostInit) => Partial<HostInit> = () => ({})): HostInit[] {
  const names = Array.from({ length: count }, (_, index) => `host ${index}`)
  const seed: HostInit = { name: 'seed', link: LINK, isSeed: true, asks: [] }
  const hosts = names.map((name, index): HostInit => ({
    name, link: LINK, startsAt: index * 1000 / count, asks: ['seed', ...names.filter(other => other !== name)],
  }))
  return [seed, ...hosts].map(host => ({ ...host, ...change(host) }))
}

function receivers(simulation: Simulation): SimHost[] {
  return [...simulation.hosts.values()].filter(({ init }) => init.isSeed !== true)
}

describe('a flash crowd of one seed and eight hosts', () => {
  const chunks = someChunks(256 * MIB)
  const ideal = chunks.bytes / LINK.up

  it.each([[1, 5], [2, 20], [3, 50]])('ends little after the image fits through one link (seed %i, %i ms one way)', (seed, latencyMs) => {
    const simulation = new Simulation({ chunks, latencyMs, seed, hosts: crowd(8) })
    const last = simulation.run()
    expect(last / ideal).toBeLessThan(1.1)
    expect(simulation.host('seed').sent / chunks.bytes).toBeLessThan(1.15)
    const wasted = receivers(simulation).reduce((sum, host) => sum + host.wasted, 0)
    expect(wasted / (8 * chunks.bytes)).toBeLessThan(0.02)
  })

  it('runs exactly the same again', () => {
    const run = (seed: number): number[] => {
      const simulation = new Simulation({ chunks: someChunks(16 * MIB), seed, hosts: crowd(8) })
      return [simulation.run(), ...[...simulation.hosts.values()].map(({ sent }) => sent)]
    }
    expect(run(5)).toEqual(run(5))
    expect(run(5)).not.toEqual(run(6))
  })

  it('is not held up by a host with a narrow link, nor by few places', () => {
    const narrow = new Simulation({ chunks, hosts: crowd(8, ({ name }) => name === 'host 3' ? { link: { up: 300, down: 6250 } } : {}) })
    expect(narrow.run() / ideal).toBeLessThan(1.25)
    const few = new Simulation({ chunks, hosts: crowd(8), places: 4 })
    expect(few.run() / ideal).toBeLessThan(1.25)
    expect(few.host('seed').sent / chunks.bytes).toBeLessThan(1.5)
  })

  it('goes on when one of the hosts stalls, and when the seed does after the image is out', () => {
    const stalled = new Simulation({ chunks, hosts: crowd(8, ({ name }) => name === 'host 3' ? { stallsAt: 15_000 } : {}) })
    expect(stalled.run() / ideal).toBeLessThan(1.4)
    const orphaned = new Simulation({ chunks, hosts: crowd(8, ({ name }) => name === 'seed' ? { stallsAt: 1.1 * ideal } : {}) })
    expect(orphaned.run() / ideal).toBeLessThan(1.25)
  })

  it('bans a liar after one chunk, on each host', () => {
    const simulation = new Simulation({ chunks, hosts: crowd(8, ({ name }) => name === 'host 3' ? { lies: true } : {}) })
    expect(simulation.run() / ideal).toBeLessThan(1.4)
    for (const host of receivers(simulation)) expect([...host.banned]).toEqual(host.name === 'host 3' ? [] : ['host 3'])
  })
})

describe('other shapes', () => {
  const chunks = someChunks(64 * MIB)
  const ideal = chunks.bytes / LINK.up

  it('lets the end of a chain finish with the middle', () => {
    const hosts: HostInit[] = [
      { name: 'A', link: LINK, isSeed: true, asks: [] },
      { name: 'B', link: LINK, asks: ['A'] },
      { name: 'C', link: LINK, asks: ['B'] },
    ]
    const simulation = new Simulation({ chunks, hosts })
    const last = simulation.run()
    expect(last / (simulation.host('B').doneAt ?? 0)).toBeLessThan(1.1)
    expect(last / ideal).toBeLessThan(1.1)
    expect(simulation.host('C').wasted).toBe(0)
  })

  it('takes from each of several full hosts what its link gives', () => {
    const seeds = [1000, 2000, 3000].map((up, index): HostInit => ({ name: `seed ${index}`, link: { up, down: 1 }, isSeed: true, asks: [] }))
    const simulation = new Simulation({ chunks, hosts: [...seeds, { name: 'host', link: LINK, asks: seeds.map(({ name }) => name) }] })
    expect(simulation.run() / (chunks.bytes / 6000)).toBeLessThan(1.1)
    expect(simulation.host('host').wasted / chunks.bytes).toBeLessThan(0.02)
  })

  it('needs nobody but the one it reaches', () => {
    const simulation = new Simulation({ chunks, hosts: [{ name: 'seed', link: LINK, isSeed: true, asks: [] }, { name: 'host', link: LINK, asks: ['seed'] }] })
    expect(simulation.run() / ideal).toBeLessThan(1.05)
    expect(simulation.host('seed').sent).toBe(chunks.bytes)
  })

  it('leaves a peer that stalls with what nobody was asked for', () => {
    const seeds = [0, 1, 2, 3].map((index): HostInit => ({ name: `seed ${index}`, link: LINK, isSeed: true, asks: [], ...(index === 0 && { stallsAt: 2000 }) }))
    const simulation = new Simulation({ chunks, hosts: [...seeds, { name: 'host', link: LINK, asks: seeds.map(({ name }) => name) }] })
    expect(simulation.run() / ideal).toBeLessThan(1.4)
  })

  it('shares a host that has few places among many', () => {
    const hosts = Array.from({ length: 6 }, (_, index): HostInit => ({ name: `host ${index}`, link: LINK, asks: ['seed'] }))
    const simulation = new Simulation({ chunks: someChunks(32 * MIB), places: 2, hosts: [{ name: 'seed', link: LINK, isSeed: true, asks: [] }, ...hosts] })
    expect(simulation.run() / (6 * 32 * MIB / LINK.up)).toBeLessThan(1.1)
  })
})
