import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import { Chunker } from '../../../src/image/chunker.ts'
import { ChunkList, ChunkListBuilder } from '../../../src/image/chunk-list.ts'
import { decodeChunks, encodeChunks } from '../../../src/image/chunk-list-codec.ts'
import { MAX_CHUNK_BYTES, MAX_CHUNKS, MIN_CHUNK_BYTES } from '../../../src/limits.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

describe('a chunk list', () => {
  it('answers for each chunk, and for each byte', () => {
    const list = listOf(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, 5)
    expect([list.count, list.narSize]).toEqual([3, MIN_CHUNK_BYTES + MAX_CHUNK_BYTES + 5])
    expect([0, 1, 2, 3].map(chunk => list.offset(chunk))).toEqual([0, MIN_CHUNK_BYTES, MIN_CHUNK_BYTES + MAX_CHUNK_BYTES, list.narSize])
    expect([0, 1, 2].map(chunk => list.length(chunk))).toEqual([MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, 5])
    expect([0, MIN_CHUNK_BYTES - 1, MIN_CHUNK_BYTES, list.narSize - 6, list.narSize - 5, list.narSize - 1].map(offset => list.at(offset))).toEqual([0, 0, 1, 1, 2, 2])
    expect(Buffer.from(list.hash(2))).toEqual(hashOf(2))
  })

  it('comes back from its bytes, which are always the same', () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: MIN_CHUNK_BYTES, max: MAX_CHUNK_BYTES }), { maxLength: 200 }), fc.integer({ min: 1, max: MAX_CHUNK_BYTES }), (lengths, last) => {
      const list = listOf(...lengths, last)
      const bytes = encodeChunks(list)
      const back = decodeChunks(bytes)
      expect(back.columns).toEqual(list.columns)
      expect(encodeChunks(back)).toEqual(bytes)
    }))
  })

  it('has the bytes that are documented', () => {
    const bytes = encodeChunks(listOf(MIN_CHUNK_BYTES, 5))
    expect(Buffer.from(bytes)).toEqual(Buffer.concat([Buffer.from([1, 2, 0x80, 0x80, 0x01]), hashOf(0), Buffer.from([5]), hashOf(1)]))
  })

  it.each<[string, RegExp, Uint8Array]>([
    ['nothing', /found version undefined/, new Uint8Array(0)],
    ['another version', /found version 2/, patched(0, 2)],
    ['more chunks than there are bytes for', /found 3 chunks, needed at most what/, patched(1, 3)],
    ['a number of chunks over the limit', /number 3800001, needed at most 3800000/, Uint8Array.from([1, 0xc1, 0xf7, 0xe7, 0x01])],
    ['fewer chunks than bytes', /33 bytes after the end/, patched(1, 1)],
    ['no chunk, and something after it', /1 bytes after the end|found no chunk/, Uint8Array.from([1, 0, 0])],
    ['a chunk over the maximum', /number 262145, needed at most 262144/, Buffer.concat([Buffer.from([1, 1, 0x81, 0x80, 0x10]), hashOf(0)])],
    ['an empty chunk', /found a chunk of 0 bytes/, Buffer.concat([Buffer.from([1, 1, 0]), hashOf(0)])],
    ['a chunk under the minimum that is not the last', /found a chunk of 16383 bytes before the last one/, Buffer.concat([Buffer.from([1, 2, 0xff, 0x7f]), hashOf(0), Buffer.from([5]), hashOf(1)])],
    ['a length with needless bytes', /needless/, Buffer.concat([Buffer.from([1, 1, 0x85, 0x00]), hashOf(0)])],
    ['a hash that is cut', /after 31 bytes of a hash/, Buffer.concat([Buffer.from([1, 1, 0x85, 0x01]), hashOf(0).subarray(1)])],
  ])('is refused where its bytes have %s', (_, reason, bytes) => {
    expect(() => decodeChunks(bytes)).toThrow(reason)
  })

  it('is refused where it has more chunks than an image may have, before memory is taken for them', () => {
    const builder = new ChunkListBuilder(MAX_CHUNKS)
    const hash = hashOf(0)
    for (let chunk = 0; chunk < MAX_CHUNKS; chunk++) builder.add(MIN_CHUNK_BYTES, hash)
    expect(() => { builder.add(MIN_CHUNK_BYTES, hash) }).toThrow(/more than 3800000 chunks/)
  })

  it('lists none where there are too many, which has bytes of its own', () => {
    const pieces = Array.from({ length: 10 }, (_, number) => randomOf(number + 1, 100_000))
    const chunked = (most?: number): ChunkList => {
      const chunker = new Chunker(0, most === undefined ? {} : { most })
      for (const piece of pieces) chunker.update(piece)
      return chunker.finish()
    }
    const { count } = chunked()
    expect(chunked(count)).toEqual(chunked())
    expect([chunked(count - 1), chunked(1)]).toEqual([ChunkList.none(), ChunkList.none()])
    expect(Buffer.from(encodeChunks(ChunkList.none()))).toEqual(Buffer.from([1, 0]))
    expect(decodeChunks(Uint8Array.from([1, 0])).isNone).toBe(true)
    expect(chunked().isNone).toBe(false)
  })

  it('is read or refused, whatever the bytes are', () => {
    const whole = encodeChunks(listOf(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, 70_000, 5))
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }), fc.nat(whole.length), (changes, length) => {
      const bytes = Uint8Array.from(whole)
      for (const [at, byte] of changes) bytes[at] = byte
      expectReadOrRefused(bytes)
      expectReadOrRefused(bytes.subarray(0, length))
    }), { numRuns: 500 })
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), expectReadOrRefused), { numRuns: 500 })
  })
})

function hashOf(chunk: number): Buffer {
  return Buffer.alloc(32, chunk + 1)
}

function listOf(...lengths: number[]): ChunkList {
  const builder = new ChunkListBuilder()
  for (const [chunk, length] of lengths.entries()) builder.add(length, hashOf(chunk % 200))
  return builder.build()
}

function patched(at: number, byte: number): Uint8Array {
  const bytes = encodeChunks(listOf(MIN_CHUNK_BYTES, 5))
  bytes[at] = byte
  return bytes
}

/** What is read is encoded to the same bytes again: there is one encoding for each list. */
function expectReadOrRefused(bytes: Uint8Array): void {
  try {
    expect(encodeChunks(decodeChunks(bytes))).toEqual(Uint8Array.from(bytes))
  } catch (error) {
    if (!isNarvikError(error, 'invalid-manifest')) throw error
  }
}
