import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DIGEST_BYTES, formatHash, parseHash, prefixedNix32, tryParseHash, type HashAlgorithm, type HashFormat, type NixHash } from '../../../src/nix/hash.ts'

const ALGORITHMS = Object.keys(DIGEST_BYTES) as HashAlgorithm[]
const FORMATS: HashFormat[] = ['sri', 'base64', 'hex', 'nix32']
const anyHash: fc.Arbitrary<NixHash> = fc.constantFrom(...ALGORITHMS).chain(algorithm =>
  fc.uint8Array({ minLength: DIGEST_BYTES[algorithm], maxLength: DIGEST_BYTES[algorithm] }).map(bytes => ({ algorithm, bytes })))

describe('hashes', () => {
  test.each([
    ['md5', 'abc', '3jgzhjhz9zjvbb0kyj7jc500ch', 'md5-kAFQmDzST7DWlj99KOF/cg=='],
    ['sha1', 'abc', 'kpcd173cq987hw957sx6m0868wv3x6d9', 'sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0='],
    ['sha256', 'abc', '1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s', 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='],
    ['sha512', 'abc', '2gs8k559z4rlahfx0y688s49m2vvszylcikrfinm30ly9rak69236nkam5ydvly1ai7xac99vxfc4ii84hawjbk876blyk1jfhkbbyx',
      'sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=='],
  ] as const)('%s of %s', (algorithm, text, nix32, sri) => {
    const hash = { algorithm, bytes: createHash(algorithm).update(text).digest() }
    expect(formatHash(hash, 'nix32')).toBe(nix32)
    expect(formatHash(hash, 'sri')).toBe(sri)
    expect(prefixedNix32(hash)).toBe(`${algorithm}:${nix32}`)
  })

  test('every form leads back to the hash', () => {
    fc.assert(fc.property(anyHash, fc.constantFrom(...FORMATS), (hash, format) => {
      const text = formatHash(hash, format)
      const prefixed = format === 'sri' ? text : `${hash.algorithm}:${text}`
      expect(parseHash(prefixed)).toEqual(hash)
      expect(parseHash(prefixed, hash.algorithm)).toEqual(hash)
      expect(parseHash(text, hash.algorithm)).toEqual(hash)
      expect(parseHash(prefixed.replace(/=+$/, ''))).toEqual(hash)
    }))
  })

  test('no text of one hash is that of another', () => {
    fc.assert(fc.property(fc.constantFrom(...ALGORITHMS), fc.string({ unit: 'grapheme', maxLength: 140 }), (algorithm, text) => {
      const hash = tryParseHash(text, algorithm)
      if (hash === undefined) return
      const forms = FORMATS.map(format => formatHash(hash, format))
      expect([...forms, ...forms.map(form => form.replace(/=+$/, ''))]).toContain(text.replace(`${algorithm}:`, '').replace(/^[0-9A-F]+$/, hex => hex.toLowerCase()))
    }))
  })

  const sha256 = 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='
  test.each(['', ':', '-', 'sha256', 'sha256:', 'sha256-', sha256, `sha224-${sha256}`, `toString-${sha256}`, `__proto__:${sha256}`, `sha1-${sha256}`, `sha256-${sha256}=`, `sha256-${sha256.slice(0, -2)}1=`,
    `sha256-${sha256.replace('/', '_')}`, `sha256- ${sha256}`, `sha256:${sha256}\n`, 'sha256-1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s', 'sha256:2b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s'])('%j is no hash', text => {
    expect(() => parseHash(text)).toThrow(expect.objectContaining({ code: 'invalid-argument' }))
  })

  test('an algorithm that is asked for must be the one that is found', () => {
    expect(tryParseHash(`sha256-${sha256}`, 'blake3')).toBeUndefined()
    expect(tryParseHash(`blake3-${sha256}`, 'blake3')?.algorithm).toBe('blake3')
  })
})

describe('nix hash', () => {
  test.each(['md5', 'sha1', 'sha256', 'sha512'] as const)('agrees on %s', algorithm => {
    const bytes = DIGEST_BYTES[algorithm]
    const hashes = fc.sample(fc.uint8Array({ minLength: bytes, maxLength: bytes }), 100).map(sample => ({ algorithm, bytes: sample }))
    const all = (format: HashFormat): string[] => hashes.map(hash => formatHash(hash, format))
    expect(convert(algorithm, 'to-base32', all('hex'))).toEqual(all('nix32'))
    expect(convert(algorithm, 'to-base64', all('nix32'))).toEqual(all('base64'))
    expect(convert(algorithm, 'to-sri', all('base64'))).toEqual(all('sri'))
    expect(convert(algorithm, 'to-base16', all('sri'))).toEqual(all('hex'))
  })
})

function convert(algorithm: string, to: string, hashes: string[]): string[] {
  const args = ['--extra-experimental-features', 'nix-command', 'hash', to, '--type', algorithm, ...hashes]
  return execFileSync('nix', args, { encoding: 'utf8' }).trim().split('\n')
}
