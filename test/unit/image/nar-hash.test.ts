import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'

const digest = fc.uint8Array({ minLength: 32, maxLength: 32 })
const EMPTY = { // SHA-256 of no bytes
  hex: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  nix32: '0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73',
  base64: '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=',
}

describe('a NAR hash', () => {
  test('has three forms, and shows itself as SRI', () => {
    const hash = NarHash.parse(EMPTY.hex)
    expect(hash.toHex()).toBe(EMPTY.hex)
    expect(hash.toNix32()).toBe(EMPTY.nix32)
    expect(hash.toSri()).toBe(`sha256-${EMPTY.base64}`)
    expect(String(hash)).toBe(hash.toSri())
    expect(JSON.stringify({ hash })).toBe(`{"hash":"sha256-${EMPTY.base64}"}`)
  })

  const forms = [EMPTY.nix32, EMPTY.hex, EMPTY.hex.toUpperCase(), `sha256:${EMPTY.nix32}`, `sha256:${EMPTY.hex}`, `sha256:${EMPTY.hex.toUpperCase()}`,
    `sha256:${EMPTY.base64}`, `sha256-${EMPTY.base64}`, `sha256-${EMPTY.base64.slice(0, -1)}`]
  test.each(forms)('is read from %s', text => {
    expect(NarHash.parse(text).toHex()).toBe(EMPTY.hex)
  })

  const wrong = ['', 'sha256', 'sha256:', 'sha256-', 'sha256', EMPTY.base64, EMPTY.nix32.toUpperCase(), `SHA256:${EMPTY.nix32}`, `sha256-${EMPTY.nix32}`, `sha256-${EMPTY.hex}`, `sha1-${EMPTY.base64}`,
    `sha512:${EMPTY.nix32}`, ` ${EMPTY.nix32}`, `${EMPTY.nix32}\n`, `sha256-${EMPTY.base64}=`, `sha256-${EMPTY.base64.slice(0, -2)}V=`, `sha256:sha256:${EMPTY.nix32}`, EMPTY.hex.slice(1), `${EMPTY.hex}0`,
    `z${EMPTY.nix32.slice(1)}`, `2${EMPTY.nix32.slice(1)}`, `sha256-${EMPTY.base64.replace('+', '-').replace('/', '_')}`, 'x'.repeat(1_000_000)]
  test.each(wrong.map(text => [text.slice(0, 80), text]))('is not read from %j', (_, text) => {
    expect(NarHash.tryParse(text)).toBeUndefined()
    expect(() => NarHash.parse(text)).toThrow(expect.objectContaining({ code: 'invalid-argument', message: expect.stringMatching(/^Cannot read a NAR hash: found .{0,220}, needed sha256-/) as string }))
  })

  test('every form leads back to the bytes', () => {
    fc.assert(fc.property(digest, bytes => {
      const hash = NarHash.fromBytes(bytes)
      for (const text of [hash.toSri(), hash.toNix32(), hash.toHex(), `sha256:${hash.toNix32()}`, `sha256:${hash.toHex()}`, hash.toHex().toUpperCase()]) {
        expect(NarHash.parse(text).equals(hash)).toBe(true)
        expect(NarHash.parse(text).bytes).toEqual(bytes)
      }
    }))
  })

  test('is equal to another by its bytes only', () => {
    fc.assert(fc.property(digest, fc.nat(255), (bytes, bit) => {
      const other = Uint8Array.from(bytes)
      other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(NarHash.fromBytes(bytes).equals(NarHash.fromBytes(Uint8Array.from(bytes)))).toBe(true)
      expect(NarHash.fromBytes(bytes).equals(NarHash.fromBytes(other))).toBe(false)
    }))
  })

  test('does not change with the bytes that it was made from', () => {
    const bytes = new Uint8Array(32)
    const hash = NarHash.fromBytes(bytes)
    bytes[0] = 1
    expect(hash.toHex()).toBe('0'.repeat(64))
  })

  test.each([0, 31, 33, 64])('has not %i bytes', length => {
    expect(() => NarHash.fromBytes(new Uint8Array(length))).toThrow(/found \d+ bytes, needed 32/)
  })

  test('nix hash agrees on every form', () => {
    const hashes = fc.sample(digest, 200).map(bytes => NarHash.fromBytes(bytes))
    const hex = hashes.map(hash => hash.toHex())
    const nix32 = hashes.map(hash => hash.toNix32())
    const sri = hashes.map(hash => hash.toSri())
    expect(nixHash('to-base32', hex)).toEqual(nix32)
    expect(nixHash('to-sri', nix32)).toEqual(sri)
    expect(nixHash('to-base16', sri)).toEqual(hex)
    const prefixed = nixHash('to-base64', hex).map(text => `sha256:${text}`)
    expect(prefixed.map(text => NarHash.parse(text).toHex())).toEqual(hex)
  })
})

function nixHash(to: string, hashes: string[]): string[] {
  const args = ['--extra-experimental-features', 'nix-command', 'hash', to, '--type', 'sha256', ...hashes]
  return execFileSync('nix', args, { encoding: 'utf8' }).trim().split('\n')
}
