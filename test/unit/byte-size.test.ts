import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatByteSize, parseByteSize } from '../../src/byte-size.ts'

describe('a size', () => {
  test.each([
    ['0', 0], ['4096', 4096], ['1 B', 1], ['200 GiB', 200 * 1024 ** 3], ['200GiB', 200 * 1024 ** 3], ['1.5 TiB', 1.5 * 1024 ** 4],
    ['500 MB', 500_000_000], ['10 kB', 10_000], ['2 TB', 2e12], [' 1 KiB ', 1024],
  ])('%s', (text, bytes) => { expect(parseByteSize(text)).toBe(bytes) })

  test.each(['', 'GiB', '-1', '1 G', '1 gib', '1e3', '1,5 GiB', '1  GiB', '1 constructor', '999999999999999 TiB', '0x10'])('is not %j', text => {
    expect(parseByteSize(text)).toBeUndefined()
  })

  test.each([[0, '0'], [1, '1'], [1024 ** 3, '1 GiB'], [1536 * 1024, '1536 KiB'], [2 * 1024 ** 4, '2 TiB']])('of %d bytes is written %s, and read back', (bytes, text) => {
    expect(formatByteSize(bytes)).toBe(text)
    expect(parseByteSize(text)).toBe(bytes)
  })

  test('in bytes is itself', () => {
    fc.assert(fc.property(fc.nat(), bytes => { expect(parseByteSize(String(bytes))).toBe(bytes) }))
  })
})
