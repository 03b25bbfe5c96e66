import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isNarvikError, messageOf } from '../../../src/errors.ts'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { parsePathInfo, parsePathInfoEntry } from '../../../src/nix/path-info.ts'

const VECTORS = join(import.meta.dirname, '../../vectors')

interface Vector {
  readonly storeDir: string
  readonly answer: unknown
  readonly expected: Record<string, Record<string, unknown> | null>
}

interface Rejected { readonly about: string, readonly answer: unknown, readonly needed: string }

function read(file: string): unknown {
  return JSON.parse(readFileSync(join(VECTORS, file), 'utf8')) as unknown
}

function plain(infos: Map<string, NixPathInfo | null>): unknown {
  return Object.fromEntries([...infos].map(([path, info]) => {
    if (info === null) return [path, null]
    expect(info.path).toBe(path)
    return [path, { ...info, path: undefined, narHash: info.narHash.toSri() }]
  }))
}

describe('every generation says the same', () => {
  test.each(readdirSync(join(VECTORS, 'path-info')))('%s', file => {
    const { storeDir, answer, expected } = read(join('path-info', file)) as Vector
    expect(plain(parsePathInfo(JSON.stringify(answer), storeDir))).toEqual(expected)
  })
})

describe('an answer of no known shape is shown', () => {
  test.each(read('path-info-rejected.json') as Rejected[])('$about', ({ answer, needed }) => {
    expect(() => parsePathInfo(JSON.stringify(answer))).toThrow(expect.objectContaining({ code: 'nix-failed', message: expect.stringContaining(`needed ${needed}`) as string }))
  })

  test.each(['', ' ', '[', 'warning: hello\n[]', '{}{}', '\0'])('%j is no JSON', text => {
    expect(() => parsePathInfo(text)).toThrow(/^Cannot read the answer of nix path-info: found .*, needed JSON$/)
  })

  test('what is shown is bounded', () => {
    expect(() => parsePathInfo(JSON.stringify({ ['x'.repeat(100_000)]: null }))).toThrow(/^.{100,400}$/)
  })

  test.each([7, true, [], ['x']])('a content address that is neither a text nor an object (%j) is refused', ca => {
    expect(() => parsePathInfo(JSON.stringify({ [PATH]: { narHash: 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=', narSize: 1, references: [], ca } }))).toThrow(/found .* as|needed a/)
  })

  test('a key of the prototype is a key', () => {
    expect(() => parsePathInfo('{"__proto__":null}')).toThrow(/found "__proto__" as a path/)
    expect(parsePathInfo('{}').size).toBe(0)
  })
})

const PATH = `/nix/store/${'1'.repeat(32)}-image`
const entry = fc.record({ narHash: fc.constant('sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='), narSize: fc.jsonValue(), references: fc.jsonValue(), ca: fc.jsonValue(), deriver: fc.jsonValue(),
  signatures: fc.jsonValue(), registrationTime: fc.jsonValue(), ultimate: fc.jsonValue(), valid: fc.jsonValue() }, { requiredKeys: [] })

test('whatever JSON comes, the answer is a value or an error of Narvik', () => {
  const answers = fc.oneof(fc.jsonValue(), fc.array(entry.map(value => ({ path: PATH, ...value }))), entry.map(value => ({ [PATH]: value })),
    fc.record({ version: fc.constantFrom<unknown>(1, 2, 3, 4, '2', null), storeDir: fc.constantFrom<unknown>('/nix/store', '/', null), info: entry.map(value => ({ [PATH.slice(11)]: value })) }))
  fc.assert(fc.property(answers, answer => {
    try {
      parsePathInfo(JSON.stringify(answer))
    } catch (error) {
      if (!isNarvikError(error, 'nix-failed')) throw new Error(messageOf(error), { cause: error })
    }
  }), { numRuns: 1000 })
})

/** Entries of Nix's own test data, where NARVIK_VECTORS names a directory that has them. */
function foreignEntries(): string[] {
  const root = process.env['NARVIK_VECTORS']
  if (root === undefined) return []
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  const entries = files.filter(file => /^nix[^/]*\/(path|nar)-info\/.*\.json$/.test(file)).map(file => join(root, file)).sort()
  if (entries.length === 0) throw new Error(`Found no path-info vectors in ${root}`)
  return entries
}

describe('the entries of others', () => {
  test('are read alike, each by its generation', () => {
    for (const file of foreignEntries()) {
      const value = JSON.parse(readFileSync(file, 'utf8')) as { version?: number, storeDir?: string, ca: unknown }
      const names = (value.version ?? 1) >= 2 ? 'base' : 'full'
      const info = parsePathInfoEntry(PATH, value, { storeDir: value.storeDir ?? '/nix/store', names })
      const empty = basename(file).startsWith('empty')
      const impure = basename(file).startsWith('impure')
      expect({ ...info, narHash: info.narHash.toSri() }, file).toEqual({
        path: PATH,
        narHash: 'sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc=',
        narSize: empty ? 0 : 34878,
        references: empty ? [] : ['/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar', '/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo'],
        ca: empty ? null : 'fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh',
        deriver: impure ? '/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv' : null,
        signatures: impure ? [expect.stringMatching(/^asdf(:|$)/), expect.stringMatching(/^qwer(:|$)/)] : [],
        registrationTime: impure ? 23423 : null,
        ultimate: impure,
      })
    }
  })
})
