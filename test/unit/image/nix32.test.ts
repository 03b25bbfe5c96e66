import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeNix32, encodeNix32, nix32Length } from '../../../src/image/nix32.ts'

const ALPHABET = '0123456789abcdfghijklmnpqrsvwxyz'

describe('nix32', () => {
  test.each([[0, 0], [1, 2], [16, 26], [20, 32], [32, 52], [64, 103]])('%i bytes are %i characters', (bytes, characters) => {
    expect(nix32Length(bytes)).toBe(characters)
    expect(encodeNix32(new Uint8Array(bytes))).toBe('0'.repeat(characters))
  })

  test('is the bytes as a little-endian number, most significant digit first', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), bytes => {
      let number = bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
      let text = ''
      for (let digit = 0; digit < nix32Length(bytes.length); digit++) {
        text = ALPHABET.charAt(Number(number % 32n)) + text
        number /= 32n
      }
      expect(encodeNix32(bytes)).toBe(text)
    }))
  })

  test('decoding undoes encoding', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), bytes => {
      expect(decodeNix32(encodeNix32(bytes), bytes.length)).toEqual(bytes)
    }))
  })

  test('a text that decodes is the only text of its bytes', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...Array.from(ALPHABET)), minLength: 52, maxLength: 52 }), text => {
      const bytes = decodeNix32(text, 32)
      // 52 digits hold four bits more than 32 bytes do.
      expect(bytes !== undefined).toBe(/^[01]/.test(text))
      if (bytes !== undefined) expect(encodeNix32(bytes)).toBe(text)
    }))
  })

  test('anything else does not decode', () => {
    const good = encodeNix32(new Uint8Array(32).fill(7))
    fc.assert(fc.property(fc.nat(51), fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }), (index, unit) => {
      const text = good.slice(0, index) + unit + good.slice(index + 1)
      fc.pre(text.length !== 52 || !ALPHABET.includes(unit))
      expect(decodeNix32(text, 32)).toBeUndefined()
    }))
    for (const text of ['', good.slice(1), `${good}0`, good.toUpperCase()]) expect(decodeNix32(text, 32)).toBeUndefined()
  })

  test.each([['md5', 16], ['sha1', 20], ['sha256', 32], ['sha512', 64]])('nix-hash agrees for %s', (type, length) => {
    const samples = fc.sample(fc.uint8Array({ minLength: length, maxLength: length }), 100)
    const hex = samples.map(bytes => Buffer.from(bytes).toString('hex'))
    const nix32 = samples.map(encodeNix32)
    expect(convert(type, '--to-base32', hex)).toEqual(nix32)
    expect(convert(type, '--to-base16', nix32)).toEqual(hex)
  })
})

function convert(type: string, to: string, hashes: string[]): string[] {
  return execFileSync('nix-hash', ['--type', type, to, ...hashes], { encoding: 'utf8' }).trim().split('\n')
}
