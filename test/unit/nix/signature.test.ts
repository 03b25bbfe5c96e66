import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { parsePathInfo } from '../../../src/nix/path-info.ts'
import {
  checkSignatures, fingerprintOf, formatPublicKey, formatSecretKey, generateSecretKey, isKeyName, parsePublicKey, parseSecretKey, publicKeyOf, signFingerprint, tryParseSignature,
  type PublicKey,
} from '../../../src/nix/signature.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

// A key that was made to be shown, and what Nix 2.8 signed with it.
const SECRET = 'research.example-1:q1CKxDD+WevGH3mc8zxildfBSoOws5baX0iz4Jt5ZXXm4FDEq8afTosRwlK/RzqI59LFutjJUJA03KxlSPTiEg=='
const PUBLIC = 'research.example-1:5uBQxKvGn06LEcJSv0c6iOfSxbrYyVCQNNysZUj04hI='
const FINGERPRINT = '1;/nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-with-ref;sha256:1k1cyban94lfrj9zcazdl665h5fz7791xigz0ini5nnjzqbh01fi;176;/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'
const SIGNATURE = 'research.example-1:8C/Vnyaqmu9qXk2OT82IcWGv26Il2xTst4A7Y/O41NhPI5SlvtQx1vnGmxuP9fejFFQFljAl43lNfkz7m0SsDw=='
const PATH = {
  path: '/nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-with-ref',
  narHash: NarHash.parse('1k1cyban94lfrj9zcazdl665h5fz7791xigz0ini5nnjzqbh01fi'),
  narSize: 176,
  references: ['/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'],
}

describe('a fingerprint', () => {
  test('is the text that Nix signs', () => {
    expect(fingerprintOf(PATH)).toBe(FINGERPRINT)
    expect(fingerprintOf({ ...PATH, references: [] })).toMatch(/;176;$/)
  })

  test('has its references sorted, each once', () => {
    const [a = '', b = '', c = ''] = ['a', 'b', 'c'].map(letter => `/nix/store/${letter.repeat(32)}-x`)
    expect(fingerprintOf({ ...PATH, references: [c, a, b, a] })).toBe(fingerprintOf({ ...PATH, references: [a, b, c] }))
    expect(fingerprintOf({ ...PATH, references: [c, a, b] })).toMatch(new RegExp(`;${a},${b},${c}$`))
  })

  test('is not made of fields that could be taken for others', () => {
    for (const wrong of [{ path: `${PATH.path};1` }, { path: 'x' }, { references: [`${PATH.path},${PATH.path}`] }, { narSize: 0 }, { narSize: -1 }, { narSize: 1.5 }, { narSize: Number.NaN }, { narSize: 2 ** 53 }]) {
      expect(() => fingerprintOf({ ...PATH, ...wrong })).toThrow(/^Cannot make the fingerprint of /)
    }
    expect(() => fingerprintOf(PATH, '/srv/store')).toThrow(/needed a store path in \/srv\/store/)
  })
})

describe('keys', () => {
  test('are read and printed in the form of Nix', () => {
    expect(formatSecretKey(parseSecretKey(SECRET))).toBe(SECRET)
    expect(formatPublicKey(parsePublicKey(PUBLIC))).toBe(PUBLIC)
    expect(formatPublicKey(publicKeyOf(parseSecretKey(`${SECRET}\r\n`)))).toBe(PUBLIC)
    expect(parsePublicKey(` ${PUBLIC}\n`).name).toBe('research.example-1')
  })

  const [name, base64 = ''] = PUBLIC.split(':')
  test.each(['', ':', base64, `:${base64}`, `${name ?? ''}:`, `a b:${base64}`, `ä:${base64}`, `x:y:${base64}`, `x:${base64.slice(4)}`, `x:${base64}AAAA`, `x:${base64.replace('=', '')}`, `x:${base64}=`, SECRET, `x\n:${base64}`])('%j is no public key', text => {
    expect(() => parsePublicKey(text)).toThrow(/^Cannot read a public key: found /)
  })

  test.each([PUBLIC, `x:${'A'.repeat(86)}==`, SECRET.replace('q1CK', 'q1CL'), SECRET.slice(0, -4), SECRET.slice(SECRET.indexOf(':') + 1)])('%j is no secret key, and is not shown', text => {
    const secret = text.slice(text.indexOf(':') + 1)
    expect(() => parseSecretKey(text)).toThrow(expect.objectContaining({ code: 'invalid-argument', message: expect.not.stringContaining(secret) as string }))
  })

  test('a name has no colon and no space', () => {
    expect(['a', 'cache.nixos.org-1', 'ops@example', '!'].every(isKeyName)).toBe(true)
    expect(['', 'a:b', 'a b', 'a\n', 'ä', 'x'.repeat(256)].some(isKeyName)).toBe(false)
    expect(() => generateSecretKey('a:b')).toThrow(/^Cannot make a key: found the name "a:b"/)
  })
})

describe('signatures', () => {
  test('are those of Nix', () => {
    expect(signFingerprint(FINGERPRINT, parseSecretKey(SECRET))).toBe(SIGNATURE)
    expect(checkSignatures(FINGERPRINT, [SIGNATURE], [parsePublicKey(PUBLIC)])).toEqual([{ text: SIGNATURE, keyName: 'research.example-1', verdict: 'good', madeBy: PUBLIC }])
  })

  test('are good for what was signed only', () => {
    const keys = [parsePublicKey(PUBLIC)]
    fc.assert(fc.property(fc.nat(FINGERPRINT.length - 1), fc.integer({ min: 1, max: 127 }), (index, change) => {
      const other = FINGERPRINT.slice(0, index) + String.fromCharCode(FINGERPRINT.charCodeAt(index) ^ change) + FINGERPRINT.slice(index + 1)
      expect(checkSignatures(other, [SIGNATURE], keys)[0]?.verdict).toBe('bad')
    }))
    fc.assert(fc.property(fc.nat(511), bit => {
      const bytes = Buffer.from(SIGNATURE.slice(SIGNATURE.indexOf(':') + 1), 'base64')
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(checkSignatures(FINGERPRINT, [`research.example-1:${bytes.toString('base64')}`], keys)[0]?.verdict).toBe('bad')
    }))
  })

  test('of several keys are told apart, also of two with one name', () => {
    const [old, next, stranger, imposter] = [generateSecretKey('ops-1'), generateSecretKey('ops-1'), generateSecretKey('other'), generateSecretKey('ops-1')]
    const trusted = [publicKeyOf(old), publicKeyOf(next)]
    const texts = [old, next, stranger, imposter].map(key => signFingerprint(FINGERPRINT, key))
    const checked = checkSignatures(FINGERPRINT, [...texts, 'ops-1', 'ops-1:AAAA', ''], trusted)
    expect(checked.map(({ verdict }) => verdict)).toEqual(['good', 'good', 'unknown', 'bad', 'malformed', 'malformed', 'malformed'])
    expect(checked.map(({ madeBy }) => madeBy)).toEqual([...trusted.map(formatPublicKey), null, null, null, null, null])
  })

  test('count for nothing under another name', () => {
    const renamed = SIGNATURE.replace('research.example-1', 'cache.nixos.org-1')
    expect(checkSignatures(FINGERPRINT, [renamed], [parsePublicKey(PUBLIC)])[0]?.verdict).toBe('unknown')
  })

  test('have 64 bytes in plain base64', () => {
    expect(tryParseSignature(SIGNATURE)?.bytes).toHaveLength(64)
    for (const text of ['asdf', `${SIGNATURE}\n`, ` ${SIGNATURE}`, SIGNATURE.replace('==', ''), SIGNATURE.replace('Dw==', 'Dx=='), `x${'y'.repeat(2000)}:${SIGNATURE}`]) expect(tryParseSignature(text)).toBeUndefined()
  })
})

describe('the real Nix', () => {
  let store: ThrowAwayStore
  let out: string
  beforeAll(() => {
    store = throwAwayStore()
    out = store.run('nix-build', '--no-out-link', '-E', 'derivation { name = "image"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.toFile "part" "x"} $out > $out" ]; }')
  })
  afterAll(() => { store.remove() })

  function info(): NixPathInfo {
    const found = parsePathInfo(store.run('nix', 'path-info', '--json', out), store.storeDir).get(out)
    if (found === undefined || found === null) throw new Error(`Expected ${out} to be valid`)
    return found
  }

  test('reads the keys that are made here, and the other way round', () => {
    const key = generateSecretKey('made-here')
    const asPublic = execFileSync('nix', ['--extra-experimental-features', 'nix-command', 'key', 'convert-secret-to-public'], { input: formatSecretKey(key), encoding: 'utf8' })
    expect(asPublic).toBe(formatPublicKey(publicKeyOf(key)))
    const secret = store.run('nix', 'key', 'generate-secret', '--key-name', 'made-by.nix-1')
    expect(formatSecretKey(parseSecretKey(secret))).toBe(secret)
  })

  test('signs as we do', () => {
    const keys = [generateSecretKey('a'), generateSecretKey('b.example-2')]
    for (const key of keys) store.run('nix', 'store', 'sign', '-k', store.file('key', formatSecretKey(key)), out)
    const found = info()
    expect(found.references).toContain(out)
    expect(found.signatures).toEqual(keys.map(key => signFingerprint(fingerprintOf(found, store.storeDir), key)))
  })

  test('takes our signatures, and refuses what we call bad', () => {
    // What was built here is trusted without a signature; so it is registered again, as a path that came from elsewhere.
    const { references } = info()
    const contents = readFileSync(out)
    store.run('nix-store', '--delete', '--ignore-liveness', out)
    writeFileSync(out, contents, { mode: 0o444 })
    store.run('sh', '-c', `nix-store --register-validity < ${store.file('registration', [out, '', references.length, ...references, ''].join('\n'))}`)
    expect(info()).toMatchObject({ ultimate: false, signatures: [] })

    const key = generateSecretKey('verify')
    const [right, wrong] = [publicKeyOf(key), publicKeyOf(generateSecretKey('verify'))]
    expect(nixVerifies(right)).toBe(false)
    store.run('nix', 'store', 'sign', '-k', store.file('key', formatSecretKey(key)), out)
    expect([nixVerifies(right), nixVerifies(wrong)]).toEqual([true, false])
    const signed = info()
    const verdict = (trusted: PublicKey): unknown => checkSignatures(fingerprintOf(signed, store.storeDir), signed.signatures, [trusted])[0]?.verdict
    expect([verdict(right), verdict(wrong)]).toEqual(['good', 'bad'])
  })

  function nixVerifies(trusted: PublicKey): boolean {
    try {
      store.run('nix', 'store', 'verify', '--no-contents', '--sigs-needed', '1', '--option', 'trusted-public-keys', formatPublicKey(trusted), out)
      return true
    } catch (error) {
      expect(error).toMatchObject({ status: 2 })
      return false
    }
  }
})
