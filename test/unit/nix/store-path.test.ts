import { createHash } from 'node:crypto'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { contentAddressToJson, formatContentAddress, parseContentAddress, storePathOf } from '../../../src/nix/content-address.ts'
import { parseHash, type NixHash } from '../../../src/nix/hash.ts'
import { fixedStorePath, isStoreDir, isStoreName, parseStorePath, sourceStorePath, textStorePath, tryParseBaseName, tryParseStorePath } from '../../../src/nix/store-path.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const NAME_CHARACTERS = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?='
const names = fc.string({ unit: fc.constantFrom(...Array.from(NAME_CHARACTERS)), minLength: 1, maxLength: 211 }).filter(isStoreName)

describe('a store path', () => {
  test('has a hash part and a name', () => {
    expect(parseStorePath('/nix/store/imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-tree-1.0')).toEqual({ baseName: 'imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-tree-1.0', hashPart: 'imrarw0j2sg12z7i4mn3mjjfh2fpgz1c', name: 'tree-1.0' })
    expect(tryParseStorePath('/srv/store/imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-.a', '/srv/store')?.name).toBe('.a')
  })

  const part = 'imrarw0j2sg12z7i4mn3mjjfh2fpgz1c'
  test.each(['', '/nix/store', '/nix/store/', `${part}-tree`, `/nix/store/${part}`, `/nix/store/${part}-`, `/nix/store/${part}-.`, `/nix/store/${part}-..`, `/nix/store/${part}-a/b`, `/nix/store/${part}-a\n`,
    `/nix/store/${part}-ä`, `/nix/store//${part}-a`, `/nix/store/../${part}-a`, `/nix/store/${part.replace('m', 'e')}-a`, `/nix/store/${part.toUpperCase()}-a`, `/nix/store/${part.slice(1)}-a`, `/gnu/store/${part}-a`,
    ` /nix/store/${part}-a`])('%j is none', text => {
    expect(() => parseStorePath(text)).toThrow(/^Cannot read a store path: found .*, needed \/nix\/store\/<32 nix32 characters>-<name>$/)
  })

  test('a name of 211 characters is the longest', () => {
    expect(tryParseBaseName(`${part}-${'x'.repeat(211)}`)).toBeDefined()
    expect(tryParseBaseName(`${part}-${'x'.repeat(212)}`)).toBeUndefined()
    expect([isStoreName('x'.repeat(211)), isStoreName('x'.repeat(212))]).toEqual([true, false])
  })

  test.each([['.', false], ['..', false], ['.-', false], ['..-a', false], ['.a', true], ['...', true], ['a.', true], ['-', true], ['', false], ['a/b', false], ['a\0', false]])('the name %j may be made: %s', (name, may) => {
    expect(isStoreName(name)).toBe(may)
  })

  test.each([['/nix/store', true], ['/a', true], ['/tmp/.x/y..z', true], ['', false], ['/', false], ['nix/store', false], ['/nix/store/', false], ['/nix//store', false], ['/nix/./store', false], ['/nix/..', false],
    ['/nix/a b', false], ['/nix/ä', false]])('%j is the directory of a store: %s', (text, is) => {
    expect(isStoreDir(text)).toBe(is)
  })
})

describe('paths that Nix 2.8 made', () => {
  const greeting = '/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'
  test.each([
    ['/nix/store/imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-tree', 'fixed:r:sha256:0ws3clgllba7vjf6bnxka961x3i8dbl45psbpk56mnb7jhnribyp', []],
    ['/nix/store/ssqixx151lrg3ybn9388qpdb1prj86mf-na+me-1._?=X', 'fixed:r:sha256:0m35wabrvlzjvv71f2xvca3vd91gh9mwvh4mm38h7yb0h9kc30v2', []],
    ['/nix/store/1vap48aqggkk52ijn2prxzxv7cnzvs0w-file', 'fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq', []],
    ['/nix/store/r4p7mxpdgz0l84v8cra3hawqmgrjml51-tree', 'fixed:r:sha1:5mjnq02k7nix75xkn4wichcrn5wjgq2b', []],
    ['/nix/store/65bvdmz33v0g91qgs9njmpabb5bicc5p-eight', 'fixed:sha512:2zfmlzmy6k9v58k9pzrw4rg6z7dsg50jmk70p7ww0k2hrcw02y1cgr9jq4qxs43clig3byndn1ygzlj5am3bxfwf2537pair24msn7s', []],
    [greeting, 'text:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq', []],
    ['/nix/store/g3xnb0i6bp25nwji5611ycz34wnzhvn4-with-ref', 'text:sha256:0sgky537q2apzwrysi7plx5ajhzx0qi0pmxmrmi1axhg4xvg1i3i', [greeting]],
  ])('%s', (path, ca, references) => {
    expect(storePathOf({ name: parseStorePath(path).name, ca: parseContentAddress(ca), references })).toBe(path)
  })
})

describe('a content address', () => {
  test('is read in any base and printed in nix32', () => {
    fc.assert(fc.property(fc.constantFrom('text', 'flat', 'nar', 'git'), fc.uint8Array({ minLength: 32, maxLength: 32 }), (method, bytes) => {
      const ca = { method, hash: { algorithm: 'sha256', bytes } } as const
      const text = formatContentAddress(ca)
      expect(parseContentAddress(text)).toEqual(ca)
      expect(parseContentAddress(text.replace(/[^:]+$/, Buffer.from(bytes).toString('hex')))).toEqual(ca)
      expect(contentAddressToJson(ca)).toEqual({ method, hash: `sha256-${Buffer.from(bytes).toString('base64')}` })
    }))
  })

  const hex = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  test.each(['', 'text', 'text:', `text:sha1:${hex.slice(24)}`, `text:${hex}`, `fixed:${hex}`, `fixed:x:sha256:${hex}`, `fixed:R:sha256:${hex}`, `fixed:sha256:${hex}0`, `fixed:sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=`,
    `fixed:r:`, `fixed:r:sha1:${hex}`, ` text:sha256:${hex}`, `r:sha256:${hex}`])('%j is none', text => {
    expect(() => parseContentAddress(text)).toThrow(/^Cannot read a content address: found /)
  })

  test('references are refused where Nix has none', () => {
    const reference = '/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'
    expect(() => storePathOf({ name: 'a', ca: parseContentAddress(`fixed:sha256:${hex}`), references: [reference] })).toThrow(/found 1 references, needed none/)
    expect(() => storePathOf({ name: 'a', ca: parseContentAddress(`text:sha256:${hex}`), selfReference: true })).toThrow(/needed none/)
    expect(() => storePathOf({ name: '..', ca: parseContentAddress(`text:sha256:${hex}`) })).toThrow(/found the name "\.\."/)
    expect(() => storePathOf({ name: 'a', ca: parseContentAddress(`text:sha256:${hex}`), storeDir: '/a/../b' })).toThrow(/needed an absolute path/)
  })

  test('the order and number of references do not matter, what they are does', () => {
    const [a = '', b = ''] = ['a', 'b'].map(letter => `/nix/store/${letter.repeat(32)}-${letter}`)
    const path = (references: string[], selfReference = false): string => sourceStorePath({ name: 'x', narSha256: new Uint8Array(32), references, selfReference })
    expect(path([b, a, b])).toBe(path([a, b]))
    expect(new Set([path([]), path([a]), path([b]), path([a, b]), path([a], true), path([], true)]).size).toBe(6)
  })
})

describe('the real Nix', () => {
  let store: ThrowAwayStore
  beforeAll(() => { store = throwAwayStore() })
  afterAll(() => { store.remove() })

  function nixHash(type: string, ...args: string[]): NixHash {
    return parseHash(`${type}:${store.run('nix-hash', '--type', type, ...args)}`)
  }

  test('nix store add-path puts trees where they are expected', () => {
    mkdirSync(join(store.root, 'tree/sub'), { recursive: true })
    store.file('tree/sub/a', 'hello\n')
    symlinkSync('sub/a', join(store.root, 'tree/link'))
    const { bytes } = nixHash('sha256', join(store.root, 'tree'))
    for (const name of fc.sample(names, 12)) {
      expect(store.run('nix', 'store', 'add-path', '--name', name, join(store.root, 'tree'))).toBe(sourceStorePath({ name, narSha256: bytes, storeDir: store.storeDir }))
    }
  })

  test.each(['md5', 'sha1', 'sha256', 'sha512'])('nix-store --add-fixed %s puts files and trees where they are expected', type => {
    mkdirSync(join(store.root, 'fixed'), { recursive: true })
    const file = store.file('fixed/file', `contents for ${type}`)
    const { storeDir } = store
    expect(store.run('nix-store', '--add-fixed', type, file)).toBe(fixedStorePath({ name: 'file', method: 'flat', hash: nixHash(type, '--flat', file), storeDir }))
    const tree = nixHash(type, join(store.root, 'fixed'))
    expect(store.run('nix-store', '--add-fixed', '--recursive', type, join(store.root, 'fixed'))).toBe(storePathOf({ name: 'fixed', ca: { method: 'nar', hash: tree }, storeDir }))
  })

  test('builtins.toFile and derivations go where they are expected', () => {
    const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest()
    const { storeDir } = store
    const part = store.run('nix-instantiate', '--eval', '-E', '(builtins.toFile "part" "ä\\n")').replaceAll('"', '')
    expect(part).toBe(textStorePath({ name: 'part', sha256: sha256('ä\n'), storeDir }))
    const whole = store.run('nix-instantiate', '--eval', '-E', '(builtins.toFile "whole" "see ${builtins.toFile "part" "ä\\n"}")').replaceAll('"', '')
    expect(whole).toBe(textStorePath({ name: 'whole', sha256: sha256(`see ${part}`), references: [part], storeDir }))
    const drv = store.run('nix-instantiate', '-E', 'derivation { name = "image"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ (builtins.toFile "part" "ä\\n") ]; }')
    const info = JSON.parse(store.run('nix', 'path-info', '--derivation', '--json', drv)) as [{ ca: string, references: string[] }]
    expect(storePathOf({ name: parseStorePath(drv, storeDir).name, ca: parseContentAddress(info[0].ca), references: info[0].references, storeDir })).toBe(drv)
  })

  test('a content-addressed output that refers to itself goes where it is expected', () => {
    const build = 'derivation { name = "self-1.0"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.toFile "part" "x"} $out > $out" ]; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
    const features = ['--extra-experimental-features', 'ca-derivations']
    const out = store.run('nix-build', '--no-out-link', ...features, '-E', build)
    const [info] = JSON.parse(store.run('nix', 'path-info', '--json', out)) as [{ ca: string, references: string[] }]
    expect(info.references).toContain(out)
    const references = info.references.filter(reference => reference !== out)
    const { name } = parseStorePath(out, store.storeDir)
    const { storeDir } = store
    expect(storePathOf({ name, ca: parseContentAddress(info.ca), references, selfReference: true, storeDir })).toBe(out)
    expect(storePathOf({ name, ca: parseContentAddress(info.ca), references, storeDir })).not.toBe(out)
  })
})
