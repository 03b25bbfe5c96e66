import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Chunker } from '../../../src/image/chunker.ts'
import type { ChunkList } from '../../../src/image/chunk-list.ts'
import { gearTable, NORMAL_BYTES } from '../../../src/image/fastcdc.ts'
import { MAX_CHUNK_BYTES, MAX_CHUNKS, MIN_CHUNK_BYTES } from '../../../src/limits.ts'
import { bytesOf, type Part, randomOf } from '../../vectors/fastcdc/inputs.ts'
import { referenceLengths } from '../../vectors/fastcdc/reference.ts'

interface CutVector {
  readonly name: string
  readonly parts: readonly Part[]
  readonly chunks: readonly { readonly length: number, readonly blake3: string }[]
}

const cuts = read('cuts.json') as CutVector[]

describe('FastCDC', () => {
  it('has the gear table of the vectors', () => {
    expect(gearTable()).toEqual(read('gear.json'))
  })

  it.each(cuts.map(vector => [vector.name, vector] as const))('cuts %s as the vectors say', (_, { parts, chunks }) => {
    expect(chunksOf(chunked([bytesOf(parts)]))).toEqual(chunks)
  })

  it('cuts as the reference does, in whatever pieces the bytes come', () => {
    const stretch = fc.record({ seed: fc.integer({ min: 1, max: 2 ** 31 }), length: fc.integer({ min: 1, max: 200_000 }), isZero: fc.boolean() })
    fc.assert(fc.property(fc.array(stretch, { minLength: 1, maxLength: 5 }), fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 1, maxLength: 20 }), (stretches, sizes) => {
      const bytes = Buffer.concat(stretches.map(({ seed, length, isZero }) => isZero ? Buffer.alloc(length) : randomOf(seed, length)))
      const list = chunked(piecesOf(bytes, sizes))
      expect(chunksOf(list)).toEqual(chunksOf(chunked([bytes])))
      expect(chunksOf(list).map(({ length }) => length)).toEqual(referenceLengths(bytes))
    }), { numRuns: 15 })
  })

  it('makes chunks within the bounds, 64 KiB in the mean', () => {
    const list = chunked([randomOf(3, 64 * 1024 * 1024)])
    const lengths = chunksOf(list).map(({ length }) => length)
    expect(Math.min(...lengths.slice(0, -1))).toBeGreaterThanOrEqual(MIN_CHUNK_BYTES)
    expect(Math.max(...lengths)).toBeLessThanOrEqual(MAX_CHUNK_BYTES)
    expect(list.narSize / list.count / 1024).toBeGreaterThan(61)
    expect(list.narSize / list.count / 1024).toBeLessThan(67)
  })

  it('has the bounds that SPEC.md tells', () => {
    const spec = readFileSync(join(import.meta.dirname, '../../../src/image/SPEC.md'), 'utf8')
    for (const bound of [MIN_CHUNK_BYTES, NORMAL_BYTES, MAX_CHUNK_BYTES, MAX_CHUNKS]) expect(spec).toContain(bound.toLocaleString('en'))
  })

  it('finds the same chunks again behind an insertion', () => {
    const bytes = randomOf(5, 8 * 1024 * 1024)
    const before = new Set(chunksOf(chunked([bytes])).map(({ blake3 }) => blake3))
    const after = chunksOf(chunked([bytes.subarray(0, 4_000_000), Buffer.from('inserted'), bytes.subarray(4_000_000)]))
    expect(after.filter(({ blake3 }) => !before.has(blake3)).length).toBeLessThanOrEqual(2)
  })
})

function read(name: string): unknown {
  return JSON.parse(readFileSync(join(import.meta.dirname, '../../vectors/fastcdc', name), 'utf8'))
}

function chunked(pieces: readonly Buffer[]): ChunkList {
  const chunker = new Chunker(0)
  for (const piece of pieces) chunker.update(piece)
  return chunker.finish()
}

function chunksOf(list: ChunkList): { length: number, blake3: string }[] {
  return Array.from({ length: list.count }, (_, chunk) => ({ length: list.length(chunk), blake3: Buffer.from(list.hash(chunk)).toString('hex') }))
}

function piecesOf(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0, index = 0; at < bytes.length; index++) {
    // However small the sizes are, the bytes come to an end.
    const size = Math.max(index % 7, sizes[index % sizes.length] ?? 0)
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}
