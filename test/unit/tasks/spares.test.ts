import { describe, expect, it } from 'vitest'
import { MAX_SWARM_PEERS_NAMED } from '../../../src/limits.ts'
import { Spares } from '../../../src/tasks/swarm/spares.ts'

const anybody = (): boolean => true

function sparesOf(...peerIds: readonly string[]): Spares {
  const spares = new Spares(() => 0)
  for (const source of ['A', 'B']) spares.joined(source, 0)
  for (const peerId of peerIds) spares.add(peerId)
  return spares
}

function source(peerId: string, heardAt: number, inFlight = 0) {
  return { peerId, heardAt, inFlight }
}

describe('a peer that is not asked for want of room', () => {
  it('takes the place of the source that was silent for longest', () => {
    expect(sparesOf('C').exchange(5000, [source('A', 2000), source('B', 1000)], anybody)).toEqual({ leave: 'B', ask: 'C' })
  })

  it('waits while all sources give something, owe something, or have only come', () => {
    const spares = sparesOf('C')
    expect(spares.exchange(5000, [source('A', 4000), source('B', 1000, 1)], anybody)).toBeUndefined()
    spares.joined('A', 4500)
    expect(spares.exchange(5000, [source('A', 0), source('of which nothing is known', 0)], anybody)).toBeUndefined()
  })

  it('waits for a moment after another one', () => {
    const spares = sparesOf('C', 'D')
    const sources = [source('A', 0), source('B', 0)]
    expect(spares.exchange(5000, sources, anybody)).toBeDefined()
    expect(spares.exchange(5100, sources, anybody)).toBeUndefined()
    expect(spares.exchange(5600, sources, anybody)).toBeDefined()
  })

  it('is one that is free, and whoever makes room may come back', () => {
    const spares = sparesOf('C', 'D')
    expect(spares.exchange(5000, [source('A', 0)], peerId => peerId === 'D')).toEqual({ leave: 'A', ask: 'D' })
    expect(spares.exchange(6000, [source('B', 0)], peerId => peerId !== 'C')).toEqual({ leave: 'B', ask: 'A' })
    expect(spares.exchange(7000, [source('D', 0)], () => false)).toBeUndefined()
  })

  it('is one of a bounded number', () => {
    const spares = sparesOf('first', ...Array.from({ length: MAX_SWARM_PEERS_NAMED }, (_, index) => `peer ${index}`))
    expect(spares.exchange(5000, [source('A', 0)], peerId => peerId === 'first')).toBeUndefined()
  })
})
