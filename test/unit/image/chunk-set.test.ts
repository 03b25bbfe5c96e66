import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkSet, chunksOf, toRuns } from '../../../src/image/chunk-set.ts'

const CAPACITY = 5000
const chunk = fc.nat(CAPACITY - 1)

function setOf(chunks: Iterable<number>): ChunkSet {
  const set = new ChunkSet(CAPACITY)
  for (const one of chunks) set.add(one)
  return set
}

describe('ChunkSet', () => {
  it('counts what is between two places', () => {
    fc.assert(fc.property(fc.uniqueArray(fc.nat(299)), fc.nat(300), fc.nat(300), (chunks, start, end) => {
      const set = new ChunkSet(300)
      for (const chunk of chunks) set.add(chunk)
      expect(set.countBetween(start, end)).toBe(chunks.filter(chunk => chunk >= start && chunk < end).length)
    }))
    expect(ChunkSet.full(97).countBetween(0, 97)).toBe(97)
  })

  it('is a set', () => {
    fc.assert(fc.property(fc.array(fc.tuple(fc.boolean(), chunk)), steps => {
      const [set, model] = [new ChunkSet(CAPACITY), new Set<number>()]
      for (const [add, one] of steps) {
        expect(add ? set.add(one) : set.delete(one)).toBe(add ? !model.has(one) : model.has(one))
        if (add) model.add(one)
        else model.delete(one)
      }
      expect(set.size).toBe(model.size)
      expect([...set.from(0)]).toEqual([...model].sort((a, b) => a - b))
      expect([...chunksOf(set.runs(7))]).toEqual([...set.from(0)])
      expect(toRuns(set.from(0))).toEqual([...set.runs()])
      expect([...ChunkSet.fromBytes(set.toBytes(), CAPACITY)?.from(0) ?? []]).toEqual([...set.from(0)])
    }))
  })

  it('goes round from anywhere through what it has in common with another', () => {
    fc.assert(fc.property(fc.array(chunk), fc.array(chunk), chunk, (one, other, start) => {
      const common = [...new Set(one)].filter(each => other.includes(each)).sort((a, b) => a - b)
      const expected = [...common.filter(each => each >= start), ...common.filter(each => each < start)]
      expect([...setOf(one).from(start, setOf(other))]).toEqual(expected)
      expect(setOf(one).next(start, setOf(other))).toBe(common.find(each => each >= start))
    }))
  })

  it('is full with each chunk and no other', () => {
    for (const capacity of [1, 31, 32, 33, 1024, 1025, 5000]) {
      const full = ChunkSet.full(capacity)
      expect([...full.from(0)]).toHaveLength(capacity)
      expect(full.size).toBe(capacity)
      expect([...full.runs()]).toEqual([{ first: 0, count: capacity }])
    }
    expect(ChunkSet.fromBytes(new Uint8Array(3), 8)).toBeUndefined()
  })
})
