import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkIndex } from '../../../src/image/chunk-index.ts'
import { type ChunkList, ChunkListBuilder } from '../../../src/image/chunk-list.ts'
import { MIN_CHUNK_BYTES } from '../../../src/limits.ts'

describe('an index of wanted chunks', () => {
  it('gives every chunk of a hash, once, until it is added again', () => {
    // Few hashes, so that some are alike and others share their first bytes.
    const hash = fc.tuple(fc.constantFrom(0, 1, 2, 3), fc.constantFrom(0, 9)).map(([start, end]) => hashOf(start, end))
    fc.assert(fc.property(fc.array(fc.tuple(hash, fc.boolean()), { minLength: 1, maxLength: 60 }), fc.array(hash, { maxLength: 20 }), (chunks, asked) => {
      const list = listOf(chunks.map(([each]) => each))
      const index = new ChunkIndex(list, chunk => chunks[chunk]?.[1] === true)
      const left = new Set(chunks.flatMap(([, isWanted], chunk) => isWanted ? [chunk] : []))
      for (const each of asked) {
        const expected = [...left].filter(chunk => Buffer.compare(list.hash(chunk), each) === 0)
        const found = index.take(each)
        expect(found.toSorted((a, b) => a - b)).toEqual(expected)
        for (const chunk of found) left.delete(chunk)
        const [again] = found
        if (again !== undefined) {
          index.add(again)
          left.add(again)
        }
        expect(index.size).toBe(left.size)
      }
    }))
  })

  it('takes a list of chunks that are all alike in one go', () => {
    const index = new ChunkIndex(listOf(Array.from({ length: 200_000 }, () => hashOf(1, 2))), () => true)
    expect(index.take(hashOf(1, 2))).toHaveLength(200_000)
    expect(index.take(hashOf(1, 2))).toEqual([])
  })
})

function hashOf(start: number, end: number): Buffer {
  return Buffer.concat([Buffer.alloc(16, start), Buffer.alloc(16, end)])
}

function listOf(hashes: readonly Buffer[]): ChunkList {
  const builder = new ChunkListBuilder(hashes.length)
  for (const hash of hashes) builder.add(MIN_CHUNK_BYTES, hash)
  return builder.build()
}
