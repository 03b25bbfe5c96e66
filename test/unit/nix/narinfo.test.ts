import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { MAX_REFERENCES } from '../../../src/limits.ts'
import { answersFor, COMPRESSIONS, formatNarInfo, parseNarInfo, type NarInfo } from '../../../src/nix/narinfo.ts'
import { checkSignatures, fingerprintOf, formatPublicKey, generateSecretKey, parsePublicKey, publicKeyOf, signFingerprint } from '../../../src/nix/signature.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const SIGNATURE = 'research.example-1:8C/Vnyaqmu9qXk2OT82IcWGv26Il2xTst4A7Y/O41NhPI5SlvtQx1vnGmxuP9fejFFQFljAl43lNfkz7m0SsDw=='
const PUBLIC = 'research.example-1:5uBQxKvGn06LEcJSv0c6iOfSxbrYyVCQNNysZUj04hI='
// As Nix 2.8 wrote it.
const TEXT = `StorePath: /nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-with-ref
URL: nar/1k1cyban94lfrj9zcazdl665h5fz7791xigz0ini5nnjzqbh01fi.nar
Compression: none
FileHash: sha256:1k1cyban94lfrj9zcazdl665h5fz7791xigz0ini5nnjzqbh01fi
FileSize: 176
NarHash: sha256:1k1cyban94lfrj9zcazdl665h5fz7791xigz0ini5nnjzqbh01fi
NarSize: 176
References: 7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt
Deriver: 00000000000000000000000000000000-with-ref.drv
Sig: ${SIGNATURE}
CA: text:sha256:0sgky537q2apzwrysi7plx5ajhzx0qi0pmxmrmi1axhg4xvg1i3i
`

function line(field: string): RegExp {
  return new RegExp(`^${field}:.*\n`, 'm')
}

describe('a narinfo', () => {
  test('is read', () => {
    const info = parseNarInfo(TEXT)
    expect(info).toMatchObject({ storePath: '/nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-with-ref', compression: 'none', fileSize: 176, narSize: 176,
      references: ['/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'], deriver: '/nix/store/00000000000000000000000000000000-with-ref.drv', signatures: [SIGNATURE], ca: { method: 'text' } })
    expect(checkSignatures(fingerprintOf({ ...info, path: info.storePath }), info.signatures, [parsePublicKey(PUBLIC)])[0]?.verdict).toBe('good')
    expect([answersFor(info, info.storePath), answersFor(info, '/nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-other')]).toEqual([true, false])
  })

  test('is printed as Nix prints it', () => {
    expect(formatNarInfo(parseNarInfo(TEXT))).toBe(TEXT)
  })

  test('has fields in any order, and some need not be there', () => {
    const reversed = `${TEXT.trimEnd().split('\n').reverse().join('\n')}\n`
    expect(parseNarInfo(reversed)).toEqual(parseNarInfo(TEXT))
    expect(parseNarInfo(TEXT.replace(line('References'), 'References: \n')).references).toEqual([])
    const least = ['FileHash', 'FileSize', 'References', 'Deriver', 'Sig', 'CA', 'Compression'].reduce((text, field) => text.replace(line(field), ''), TEXT)
    expect(parseNarInfo(least)).toMatchObject({ compression: 'bzip2', fileHash: null, fileSize: null, references: [], deriver: null, signatures: [], ca: null })
    expect(parseNarInfo(`${TEXT}System: x86_64-linux\nFuture: a: b\n`)).toEqual(parseNarInfo(TEXT))
    expect(parseNarInfo(TEXT.replace(line('Deriver'), 'Deriver: unknown-deriver\n')).deriver).toBeNull()
    expect(parseNarInfo(TEXT.replace(line('CA'), 'CA: \n')).ca).toBeNull()
  })

  test('has its hash in any form of Nix', () => {
    const { narHash } = parseNarInfo(TEXT)
    for (const form of [`sha256:${narHash.toHex()}`, narHash.toSri(), `sha256:${narHash.toSri().slice(7)}`]) {
      expect(parseNarInfo(TEXT.replace(line('NarHash'), `NarHash: ${form}\n`)).narHash.equals(narHash)).toBe(true)
    }
  })

  const wrong: [what: string, change: (text: string) => string, message: RegExp][] = [
    ['empty', () => '', /needed a newline/],
    ['cut off', text => text.trimEnd(), /needed a newline/],
    ['with an empty line', text => text.replace('URL', '\nURL'), /line 2/],
    ['with a line without a colon', text => `${text}hello\n`, /line 12/],
    ['with a line without a space', text => text.replace('NarSize: ', 'NarSize:'), /line 7/],
    ['with a colon in a name', text => `${text}System:x: y\n`, /line 12/],
    ['with lines of another system', text => text.replaceAll('\n', '\r\n'), /line 1/],
    ['with a NUL', text => text.replace('URL: ', 'URL: \0'), /line 2/],
    ['with two spaces', text => text.replace('NarHash: ', 'NarHash:  '), /NarHash/],
    ['without a path', text => text.replace(line('StorePath'), ''), /StorePath of a narinfo: found none/],
    ['with the path of another store', text => text.replace('/nix/store/', '/gnu/store/'), /StorePath/],
    ['with a path that is a file in one', text => text.replace('-with-ref\n', '-with-ref/bin\n'), /StorePath/],
    ['with more references than Narvik takes', text => text.replace(line('References'), `References: ${Array.from({ length: MAX_REFERENCES + 1 }, (_, index) => `${String(index).padStart(32, '0')}-a`).join(' ')}\n`), /8193 of them", needed at most 8192/],
    ['without a URL', text => text.replace(line('URL'), ''), /URL/],
    ['with an empty URL', text => text.replace(line('URL'), 'URL: \n'), /URL/],
    ['with a URL with a space', text => text.replace('URL: nar', 'URL: n ar'), /URL/],
    ['with a compression of its own', text => text.replace(': none', ': zip'), /Compression/],
    ['without a hash', text => text.replace(line('NarHash'), ''), /NarHash/],
    ['with a bare hash', text => text.replace('NarHash: sha256:', 'NarHash: '), /NarHash/],
    ['with a hash of another algorithm', text => text.replace(line('NarHash'), 'NarHash: sha1:kpcd173cq987hw957sx6m0868wv3x6d9\n'), /NarHash/],
    ['with a bare file hash', text => text.replace('FileHash: sha256:', 'FileHash: '), /FileHash/],
    ['without a size', text => text.replace(line('NarSize'), ''), /NarSize/],
    ['of no bytes', text => text.replace('NarSize: 176', 'NarSize: 0'), /NarSize/],
    ['of fewer bytes', text => text.replace('NarSize: 176', 'NarSize: -1'), /NarSize/],
    ['of bytes in hex', text => text.replace('NarSize: 176', 'NarSize: 0xb0'), /NarSize/],
    ['of too many bytes', text => text.replace('NarSize: 176', 'NarSize: 9007199254740993'), /NarSize/],
    ['with a size that begins with 0', text => text.replace('NarSize: 176', 'NarSize: 0176'), /NarSize/],
    ['with a file size in words', text => text.replace('FileSize: 176', 'FileSize: many'), /FileSize/],
    ['with full references', text => text.replace('References: ', 'References: /nix/store/'), /References/],
    ['with an empty deriver', text => text.replace(line('Deriver'), 'Deriver: \n'), /Deriver/],
    ['with a signature that is none', text => text.replace(line('Sig'), 'Sig: asdf\n'), /Sig/],
    ['with too many signatures', text => text.replace(line('Sig'), `Sig: ${SIGNATURE}\n`.repeat(65)), /Sig of a narinfo: found "65 of them"/],
    ['with a ca of no kind', text => text.replace('text:sha256', 'txt:sha256'), /CA/],
    ...['StorePath', 'URL', 'NarHash', 'NarSize', 'References', 'CA', 'Deriver'].map((field): [string, (text: string) => string, RegExp] => [`with ${field} twice`, text => text + (line(field).exec(text)?.[0] ?? ''), new RegExp(`${field} .*needed it once`)]),
  ]
  test.each(wrong)('%s is refused', (_, change, message) => {
    expect(change(TEXT)).not.toBe(TEXT)
    expect(() => parseNarInfo(change(TEXT))).toThrow(message)
  })

  test('of a size that nobody needs is refused before it is read', () => {
    expect(() => parseNarInfo(`X: ${'y'.repeat(2 ** 21)}\n`)).toThrow(expect.objectContaining({ code: 'too-large' }))
  })

  test('is not printed where it could not be read', () => {
    const info = parseNarInfo(TEXT)
    for (const change of [{ url: 'a\nSig: b' }, { url: '' }, { narSize: 0 }, { deriver: 'x' }, { storePath: '/nix/store/x' }, { references: ['7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'] }, { signatures: ['a\nb'] }]) {
      expect(() => formatNarInfo({ ...info, ...change })).toThrow(/^Cannot read /)
    }
  })

  const part = fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcdfghijklmnpqrsvwxyz')), minLength: 32, maxLength: 32 })
  const path = fc.tuple(part, fc.stringMatching(/^[0-9a-zA-Z+_?=][0-9a-zA-Z+\-._?=]{0,60}$/)).map(([hash, name]) => `/nix/store/${hash}-${name}`)
  const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 })
  const infos: fc.Arbitrary<NarInfo> = fc.record({
    storePath: path,
    url: fc.webPath().filter(url => url !== ''),
    compression: fc.constantFrom(...COMPRESSIONS),
    fileHash: fc.option(bytes.map(value => ({ algorithm: 'sha256', bytes: value } as const))),
    fileSize: fc.option(fc.nat()),
    narHash: bytes.map(value => NarHash.fromBytes(value)),
    narSize: fc.integer({ min: 1, max: 2 ** 44 }),
    references: fc.uniqueArray(path, { maxLength: 20 }).map(paths => paths.sort()),
    deriver: fc.option(path),
    signatures: fc.uniqueArray(fc.uint8Array({ minLength: 64, maxLength: 64 }).map(value => `key-1:${Buffer.from(value).toString('base64')}`), { maxLength: 4 }).map(texts => texts.sort()),
    ca: fc.option(fc.record({ method: fc.constantFrom('text', 'flat', 'nar', 'git'), hash: bytes.map(value => ({ algorithm: 'sha256', bytes: value } as const)) })),
  })

  test('reading undoes printing', () => {
    fc.assert(fc.property(infos, info => { expect(parseNarInfo(formatNarInfo(info))).toEqual(info) }))
  })

  test('whatever text comes, the answer is a value or an error of Narvik', () => {
    fc.assert(fc.property(fc.nat(TEXT.length), fc.nat(20), fc.string({ unit: 'binary', maxLength: 20 }), (start, length, insert) => {
      try {
        parseNarInfo(TEXT.slice(0, start) + insert + TEXT.slice(start + length))
      } catch (error) {
        if (!isNarvikError(error, 'invalid-argument')) throw error
      }
    }), { numRuns: 2000 })
  })
})

describe('the real Nix', () => {
  let store: ThrowAwayStore
  let out: string
  const cacheOf = (name: string): string => join(store.root, name)
  beforeAll(() => {
    store = throwAwayStore()
    out = store.run('nix-build', '--no-out-link', '-E', 'derivation { name = "image"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.toFile "part" "x"} $out > $out" ]; }')
    store.run('nix', 'copy', '--to', `file://${cacheOf('theirs')}?compression=xz`, out)
  })
  afterAll(() => { store.remove() })

  function narInfos(cache: string): string[] {
    return readdirSync(cache).filter(file => file.endsWith('.narinfo'))
  }

  test('prints what we print', () => {
    expect(narInfos(cacheOf('theirs'))).toHaveLength(2)
    for (const file of narInfos(cacheOf('theirs'))) {
      const text = readFileSync(join(cacheOf('theirs'), file), 'utf8')
      expect(formatNarInfo(parseNarInfo(text, store.storeDir), store.storeDir)).toBe(text)
    }
  })

  test('takes what we print and sign, and refuses it without our key', () => {
    const key = generateSecretKey('ours-1')
    mkdirSync(join(cacheOf('ours'), 'nar'), { recursive: true })
    copyFileSync(join(cacheOf('theirs'), 'nix-cache-info'), join(cacheOf('ours'), 'nix-cache-info'))
    for (const file of narInfos(cacheOf('theirs'))) {
      const info = parseNarInfo(readFileSync(join(cacheOf('theirs'), file), 'utf8'), store.storeDir)
      copyFileSync(join(cacheOf('theirs'), info.url), join(cacheOf('ours'), info.url))
      const signatures = [signFingerprint(fingerprintOf({ ...info, path: info.storePath }, store.storeDir), key)]
      writeFileSync(join(cacheOf('ours'), file), formatNarInfo({ ...info, signatures, deriver: null }, store.storeDir))
    }
    // The same store directory on paper, an empty one on disk.
    const copy = (trusted: string): string => store.run('nix', 'copy', '--from', `file://${cacheOf('ours')}`, '--to', join(store.root, 'receiver'), '--option', 'trusted-public-keys', trusted, out)
    expect(() => copy(formatPublicKey(publicKeyOf(generateSecretKey('ours-1'))))).toThrow(/lacks a (valid )?signature/)
    copy(formatPublicKey(publicKeyOf(key)))
    const [received] = JSON.parse(store.run('nix', 'path-info', '--json', '--store', join(store.root, 'receiver'), out)) as [{ signatures: string[] }]
    expect(received.signatures).toEqual(parseNarInfo(readFileSync(join(cacheOf('ours'), `${out.slice(store.storeDir.length + 1).slice(0, 32)}.narinfo`), 'utf8'), store.storeDir).signatures)
  })
})
