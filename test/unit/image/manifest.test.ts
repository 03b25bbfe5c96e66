import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import type { ChunkList } from '../../../src/image/chunk-list.ts'
import { encodeChunks } from '../../../src/image/chunk-list-codec.ts'
import { type Listing, ListingBuilder } from '../../../src/image/listing.ts'
import { encodeListing } from '../../../src/image/listing-codec.ts'
import { decodeManifest, encodeManifest, listsChunks } from '../../../src/image/manifest.ts'
import { MAX_MANIFEST_BYTES } from '../../../src/limits.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { chunksOfNar } from '../../helpers/chunks.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

const listing = listingOf(300_000)
const chunks = chunksOfSize(Layout.of(listing).narSize)
const manifest = Buffer.from(encodeManifest(listing, chunks))
const HEADER = Buffer.from('NARVIKMF\x02', 'latin1')
const first = section(1, encodeListing(listing))
const second = section(2, encodeChunks(chunks))

describe('a manifest', () => {
  it('has the listing and the chunk list in two sections', () => {
    expect(Buffer.concat([HEADER, first, second])).toEqual(manifest)
    const decoded = decodeManifest(manifest)
    expect(decoded.listing).toEqual(listing)
    expect(decoded.chunks).toEqual(chunks)
  })

  it('is refused when any of its bytes is missing or one is added', () => {
    for (let length = 0; length < manifest.length; length++) expect(() => decodeManifest(manifest.subarray(0, length))).toThrow('Cannot read a')
    expect(() => decodeManifest(Buffer.concat([manifest, Buffer.alloc(1)]))).toThrow('1 bytes after the last section')
  })

  it.each<[string, RegExp, Buffer[]]>([
    ['no sections', /found section undefined, needed 1/, [HEADER]],
    ['no chunks', /found section undefined, needed 2/, [HEADER, first]],
    ['no listing', /found section 2, needed 1/, [HEADER, second]],
    ['its sections in another order', /found section 2, needed 1/, [HEADER, second, first]],
    ['a section twice', /found section 1, needed 2/, [HEADER, first, first, second]],
    ['a further section', /3 bytes after the last section/, [HEADER, first, second, section(3, Buffer.from([0]))]],
    ['a section that is longer than the rest', /a section 2 of 1000 bytes, needed at most the 10 that are left/, [HEADER, first, Buffer.from([2, 0xe8, 0x07]), Buffer.alloc(10)]],
    ['a section length over every limit', /found the number/, [HEADER, Buffer.from([1, 0xff, 0xff, 0xff, 0xff, 0x7f])]],
    ['a listing in the place of the chunks', /Cannot read a chunk list/, [HEADER, first, section(2, encodeListing(listing))]],
    ['version 1', /needed that of a manifest of version 2/, [Buffer.from('NARVIKMF\x01', 'latin1'), first]],
  ])('is refused where it has %s', (_, reason, parts) => {
    expect(() => decodeManifest(Buffer.concat(parts))).toThrow(reason)
  })

  it('is refused by its length where that is over the limit, before a byte is read', () => {
    expect(() => decodeManifest(new Uint8Array(MAX_MANIFEST_BYTES + 1))).toThrow(/found \d+ bytes, needed at most/)
  })

  it('describes no layout where its chunks are of another size than its listing', () => {
    expect(Layout.describedBy({ listing, chunks }).narSize).toBe(chunks.narSize)
    expect(() => Layout.describedBy({ listing, chunks: chunksOfSize(chunks.narSize + 8) })).toThrow(/found chunks of \d+ bytes, needed the \d+ of its listing/)
    expect(() => Layout.describedBy({ listing: listingOf(300_008), chunks })).toThrow(/found chunks of/)
  })

  it('lists no chunks where that would make it too large', () => {
    expect(listsChunks(manifest)).toBe(true)
    const builder = new ListingBuilder()
    builder.directory(Buffer.alloc(0))
    const [target, entryBytes] = [Buffer.alloc(4095, 'x'), 2 + 8 + 2 + 4095]
    for (let entry = 0; entry < Math.floor((MAX_MANIFEST_BYTES - 100) / entryBytes); entry++) builder.symlink(Buffer.from(String(entry).padStart(8, '0')), target)
    builder.leave()
    const large = builder.build()
    const many = chunksOfNar(randomOf(1, 16 * 1024 * 1024))
    const bytes = encodeManifest(large, many)
    expect(bytes.length).toBeLessThanOrEqual(MAX_MANIFEST_BYTES)
    expect(listsChunks(bytes)).toBe(false)
    const decoded = decodeManifest(bytes)
    expect(decoded.chunks.isNone).toBe(true)
    expect(Layout.describedBy(decoded).narSize).toBe(Layout.of(large).narSize)
  })

  it('is read or refused, whatever its bytes are', () => {
    const change = fc.tuple(fc.nat(manifest.length - 1), fc.nat(255))
    fc.assert(fc.property(fc.array(change, { maxLength: 5 }), fc.nat(manifest.length), (changes, length) => {
      const bytes = Buffer.from(manifest)
      for (const [at, byte] of changes) bytes[at] = byte
      expectReadOrRefused(bytes)
      expectReadOrRefused(bytes.subarray(0, length))
    }), { numRuns: 1000 })
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), tail => { expectReadOrRefused(Buffer.concat([HEADER, tail])) }), { numRuns: 1000 })
  })

  it('takes no more memory than its bytes warrant, whatever they declare', () => {
    const declared = Buffer.concat([HEADER, first, section(2, Buffer.from([1, 0xc0, 0xf7, 0xe7, 0x01, ...Buffer.alloc(100)]))])
    const before = process.memoryUsage().arrayBuffers
    expect(() => decodeManifest(declared)).toThrow(/found 3800000 chunks, needed at most what the 100 bytes/)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024)
  })
})

function listingOf(size: number): Listing {
  const builder = new ListingBuilder()
  builder.directory(Buffer.alloc(0))
  builder.regular(Buffer.from('disk'), size, false)
  builder.leave()
  return builder.build()
}

function chunksOfSize(narSize: number): ChunkList {
  return chunksOfNar(Buffer.alloc(narSize, 7))
}

function section(number: number, body: Uint8Array): Buffer {
  const length = body.length < 0x80 ? [body.length] : [body.length & 0x7f | 0x80, body.length >> 7]
  return Buffer.concat([Buffer.from([number, ...length]), body])
}

/** What is read is encoded to the same bytes again: there is one encoding for each manifest. */
function expectReadOrRefused(bytes: Buffer): void {
  try {
    const decoded = decodeManifest(bytes)
    expect(Buffer.from(encodeManifest(decoded.listing, decoded.chunks)).equals(bytes)).toBe(true)
  } catch (error) {
    if (!isNarvikError(error, 'invalid-manifest')) throw error
  }
}
