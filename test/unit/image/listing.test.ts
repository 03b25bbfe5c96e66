import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import { ListingBuilder, type Listing } from '../../../src/image/listing.ts'
import { decodeListing, encodeListing } from '../../../src/image/listing-codec.ts'
import { MAX_NAR_SIZE } from '../../../src/limits.ts'
import { Layout } from '../../../src/nar/layout.ts'

const NO_NAME = Buffer.alloc(0)

function build(action: (builder: ListingBuilder) => void): Listing {
  const builder = new ListingBuilder()
  builder.directory(NO_NAME)
  action(builder)
  builder.leave()
  return builder.build()
}

describe('a listing', () => {
  it('answers for each entry', () => {
    const listing = build(builder => {
      builder.regular(Buffer.from('a'), 5, false)
      builder.directory(Buffer.from('b'))
      builder.regular(Buffer.from('x'), 7, true)
      builder.leave()
      builder.symlink(Buffer.from('c'), Buffer.from('b/x'))
    })
    const entries = Array.from({ length: listing.count }, (_, entry) => [
      listing.show(entry), listing.kind(entry), listing.size(entry), listing.executable(entry), Buffer.from(listing.target(entry)).toString(),
      listing.end(entry), listing.depth(entry), listing.parent(entry),
    ])
    expect(entries).toEqual([
      ['.', 'directory', 0, false, '', 5, 0, 0],
      ['a', 'regular', 5, false, '', 2, 1, 0],
      ['b', 'directory', 0, false, '', 4, 1, 0],
      ['b/x', 'regular', 7, true, '', 4, 2, 2],
      ['c', 'symlink', 0, false, 'b/x', 5, 1, 0],
    ])
  })

  it.each<[string, RegExp, (builder: ListingBuilder) => void]>([
    ['a name twice', /strictly ascending/, builder => { builder.regular(Buffer.from('a'), 0, false); builder.regular(Buffer.from('a'), 0, false) }],
    ['names out of order', /strictly ascending/, builder => { builder.directory(Buffer.from('b')); builder.leave(); builder.regular(Buffer.from('a'), 0, false) }],
    ['a name with /', /without \//, builder => { builder.regular(Buffer.from('a/b'), 0, false) }],
    ['the name ..', /not \. or \.\./, builder => { builder.directory(Buffer.from('..')) }],
    ['no name', /empty name/, builder => { builder.regular(NO_NAME, 0, false) }],
    ['a name of 256 bytes', /256 bytes/, builder => { builder.regular(Buffer.alloc(256, 'a'), 0, false) }],
    ['a target with NUL', /NUL/, builder => { builder.symlink(Buffer.from('a'), Buffer.from('a\0')) }],
    ['no target', /empty symlink target/, builder => { builder.symlink(Buffer.from('a'), NO_NAME) }],
    ['64 levels', /depth 64/, builder => { for (let level = 0; level < 64; level++) builder.directory(Buffer.from('d')) }],
    ['half a byte', /whole number/, builder => { builder.regular(Buffer.from('a'), 0.5, false) }],
    ['files of too many bytes', /more than/, builder => { builder.regular(Buffer.from('a'), MAX_NAR_SIZE, false); builder.regular(Buffer.from('b'), 1, false) }],
    ['an end too many', /needed an open one/, builder => { builder.leave(); builder.leave() }],
    ['a second root', /single tree/, builder => { builder.leave(); builder.directory(NO_NAME) }],
  ])('refuses %s', (_, reason, action) => {
    expect(() => build(action)).toThrow(reason)
  })

  it('is refused where its NAR would be over the limit', () => {
    expect(() => Layout.of(build(builder => { builder.regular(Buffer.from('a'), MAX_NAR_SIZE, false) }))).toThrow(/Cannot make a NAR/)
  })

  it('holds 200,000 entries in less than 20 MB, and so does its layout', () => {
    const listing = build(builder => { for (let index = 0; index < 200_000; index++) builder.regular(Buffer.from(`file-${String(index).padStart(8, '0')}`), index, false) })
    const bytes = Object.values(listing.columns).reduce((sum: number, column: unknown) => sum + (column instanceof Object && 'byteLength' in column ? Number(column.byteLength) : 0), 0)
    expect(bytes).toBeLessThan(8_000_000)
    const layout = Layout.of(listing)
    expect(layout.entryAt(layout.contentsOffset(150_000))).toBe(150_000)
  })
})

describe('the encoding of a listing', () => {
  const refused: Record<string, [number[], string]> = {
    'nothing': [[], 'byte 0, found version undefined'],
    'another version': [[2, 1, 0], 'byte 0, found version 2'],
    'no root': [[1], 'byte 1, found the end'],
    'an unknown tag': [[1, 5], 'byte 1, found tag 5'],
    'an unfinished directory': [[1, 1], 'byte 2, found the end'],
    'bytes after the end': [[1, 1, 0, 0], 'byte 3, found 1 bytes after the end'],
    'an end without a beginning': [[1, 0], 'byte 1, found the end of a directory'],
    'a name longer than what is left': [[1, 1, 2, 9, 65, 0], 'byte 2, found a name of 9 bytes'],
    'a name over its limit': [[1, 1, 2, 0x80, 2, 65], 'byte 2, found the number 256'],
    'a number with needless bytes': [[1, 2, 0x80, 0], 'byte 1, found a number with needless bytes'],
    'a number without an end': [[1, 2, 255, 255, 255, 255, 255, 255, 255, 255], 'byte 1, found a number of more than 7 bytes'],
    'a file over the limit': [[1, 2, 255, 255, 255, 255, 255, 255, 127], 'byte 1, found the number'],
    'names out of order': [[1, 1, 2, 1, 66, 0, 2, 1, 65, 0, 0], 'byte 6, found A after B'],
    'the name ..': [[1, 1, 2, 2, 46, 46, 0, 0], 'byte 2, found the name ..'],
  }

  it.each(Object.keys(refused))('with %s is refused', name => {
    const [bytes, reason] = refused[name] ?? [[], '?']
    expect(() => decodeListing(Uint8Array.from(bytes))).toThrow(`Cannot read a listing: at ${reason}`)
  })

  it('of any bytes is either refused, or the one encoding of its tree', () => {
    const likely = fc.array(fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 0, max: 4 }) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }) }), { maxLength: 40 })
    fc.assert(fc.property(likely, numbers => {
      const bytes = Uint8Array.from([1, ...numbers])
      try {
        expect(encodeListing(decodeListing(bytes))).toEqual(bytes)
      } catch (error) {
        if (!isNarvikError(error, 'invalid-manifest')) throw error
      }
    }), { numRuns: 3000 })
  })
})
