import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { isPolicyRefusal } from '../../../src/image/verdict.ts'
import { parsePathInfo } from '../../../src/nix/path-info.ts'
import { fingerprintOf, formatPublicKey, generateSecretKey, parsePublicKey, publicKeyOf, signFingerprint } from '../../../src/nix/signature.ts'
import { contradictionIn, withoutSelf } from '../../../src/verify/content-address.ts'
import { verifyTree } from '../../../src/verify/pipeline.ts'
import { judgeTrust, type TrustQuestion } from '../../../src/verify/trust.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

let store: ThrowAwayStore
/** Two text files, the second of which refers to the first; and a derivation's output, which no content address has. */
let text: NixPathInfo
let built: NixPathInfo

function infoOf(path: string): NixPathInfo {
  const info = parsePathInfo(store.run('nix', 'path-info', '--json', path), store.storeDir).get(path)
  if (info === null || info === undefined) throw new Error(`${path} is not valid`)
  return info
}

beforeAll(() => {
  store = throwAwayStore()
  text = infoOf(JSON.parse(store.run('nix-instantiate', '--eval', '--strict', '--json', '--read-write-mode', '-E',
    'builtins.toFile "with-ref" "see ${builtins.toFile "greeting" "hello"}"')) as string)
  built = infoOf(store.run('nix-build', '--no-out-link', '-E',
    'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo see ${builtins.toFile "greeting" "hello"} $out > $out" ]; }'))
})
afterAll(() => { store.remove() })

const [one, two, stranger] = [generateSecretKey('fleet-1'), generateSecretKey('fleet-2'), generateSecretKey('stranger-1')]

function question(info: NixPathInfo, changes: Partial<TrustQuestion> = {}): TrustQuestion {
  return { storePath: info.path, references: info.references, ca: info.ca, signatures: info.signatures, local: false, keys: [publicKeyOf(one), publicKeyOf(two)], needed: 1, neededForPath: 1, ...changes }
}

function signed(info: NixPathInfo, key: typeof one): string {
  return signFingerprint(fingerprintOf(info, store.storeDir), key)
}

function judge(info: NixPathInfo, changes: Partial<TrustQuestion> = {}): ReturnType<typeof judgeTrust> {
  return judgeTrust(question(info, changes), { tree: info.path, narHash: info.narHash, narSize: info.narSize })
}

describe('signatures', () => {
  test('of a trusted key are enough, whoever else signed', async () => {
    const signatures = [signed(built, stranger), signed(built, one)]
    const answer = await judge(built, { signatures })
    expect(answer).toMatchObject({ verdict: 'pass', vouchedBy: 'signatures' })
    expect(answer.signatures).toEqual([
      { text: signatures[0], keyName: 'stranger-1', verdict: 'unknown', madeBy: null },
      { text: signatures[1], keyName: 'fleet-1', verdict: 'good', madeBy: formatPublicKey(publicKeyOf(one)) },
    ])
  })

  test.each([
    ['none', () => [], /0 trusted keys signed .* 1 needed \(it has no signatures/],
    ['those of strangers', () => [signed(built, stranger)], /unknown keys: stranger-1/],
    ['a bad one in a trusted name', () => [`${signed(built, one).slice(0, -8)}AAAAAA==`], /bad signatures in the name of: fleet-1/],
    ['one of another path', () => [signed(text, one)], /bad signatures in the name of: fleet-1/],
    ['what is no signature', () => ['fleet-1:hello', 'nonsense'], /no signatures at all/],
  ])('are too few: %s', async (_, signatures, detail) => {
    const answer = await judge(built, { signatures: signatures() })
    expect(answer).toMatchObject({ verdict: 'fail', vouchedBy: null, expected: '1', found: '0' })
    expect(answer.detail).toMatch(detail)
  })

  test('count once for each key, under however many names', async () => {
    const sameKey = { name: 'other-name', key: one.key }
    const keys = [publicKeyOf(one), publicKeyOf(sameKey), publicKeyOf(two)]
    const twice = [signed(built, one), signed(built, sameKey)]
    expect(await judge(built, { keys, needed: 2, signatures: twice })).toMatchObject({ verdict: 'fail', found: '1' })
    expect(await judge(built, { keys, needed: 2, signatures: [...twice, signed(built, two)] })).toMatchObject({ verdict: 'pass' })
  })

  test('stay good while a key of the same name takes over', async () => {
    const successor = generateSecretKey('fleet-1')
    const keys = [publicKeyOf(successor), publicKeyOf(one)]
    for (const key of [one, successor]) expect(await judge(built, { keys, signatures: [signed(built, key)] })).toMatchObject({ verdict: 'pass' })
  })

  test('cover size, references and path as they are found, not as they are claimed', async () => {
    const signatures = [signed(built, one)]
    expect(await judge(built, { signatures, references: [] })).toMatchObject({ verdict: 'fail' })
    expect(await judge(built, { signatures, storePath: text.path, ca: null })).toMatchObject({ verdict: 'fail' })
    const measured = { tree: built.path, narHash: built.narHash, narSize: built.narSize + 1 }
    expect(await judgeTrust(question(built, { signatures }), measured)).toMatchObject({ verdict: 'fail' })
  })

  test('are not needed for what is asked for by its hash, but then its path is a claim', async () => {
    const answer = await judge(built, { needed: 0 })
    expect(answer).toMatchObject({ verdict: 'pass', vouchedBy: null })
    expect(answer.detail).toContain('a claim that nobody vouches for')
    expect(await judge(built, { needed: 0, neededForPath: 0 })).toMatchObject({ vouchedBy: null })
    expect(await judge(built, { needed: 0, signatures: [signed(built, two)] })).toMatchObject({ vouchedBy: 'signatures' })
    expect(await judge(built, { needed: 0, neededForPath: 2, signatures: [signed(built, two)] })).toMatchObject({ vouchedBy: null })
  })

  test('can not be had for what is no store path', async () => {
    expect(await judge(built, { storePath: null })).toMatchObject({ verdict: 'fail' })
    expect(await judge(built, { storePath: null, needed: 0 })).toMatchObject({ verdict: 'skipped', vouchedBy: null })
  })

  test('are as good as nix store sign makes them', async () => {
    store.file('key', store.run('nix', 'key', 'generate-secret', '--key-name', 'real-1'))
    const key = parsePublicKey(store.run('sh', '-c', 'nix key convert-secret-to-public < key'))
    store.run('nix', 'store', 'sign', '--key-file', join(store.root, 'key'), built.path)
    expect(await judge(infoOf(built.path), { keys: [key] })).toMatchObject({ verdict: 'pass', vouchedBy: 'signatures' })
  })
})

describe('a content address', () => {
  test('needs no signature, as in Nix', async () => {
    expect(text.references).toHaveLength(1)
    expect(await judge(text)).toMatchObject({ verdict: 'pass', vouchedBy: 'content-address' })
  })

  test.each([
    ['of a tree', 'nix-store', '--add-fixed', '--recursive', 'sha256'],
    ['of a tree, sha1', 'nix-store', '--add-fixed', '--recursive', 'sha1'],
    ['of a tree, sha512', 'nix-store', '--add-fixed', '--recursive', 'sha512'],
    ['of a file', 'nix-store', '--add-fixed', 'sha256'],
    ['of a file, md5', 'nix-store', '--add-fixed', 'md5'],
  ])('is proven: %s', async (_, program, ...args) => {
    const info = infoOf(store.run(program, ...args, store.file('plain.txt', 'plain')))
    expect(await judge(info)).toMatchObject({ vouchedBy: 'content-address' })
  })

  test.each([
    ['another path', (info: NixPathInfo) => ({ storePath: built.path, ca: info.ca ?? '' }), /belongs to/],
    ['other references', () => ({ references: [] }), /belongs to/],
    ['other content', (info: NixPathInfo) => ({ tree: store.file('other', 'other'), storePath: info.path }), /content is not that/],
    ['a directory', () => ({ tree: store.root }), /can not be hashed/],
    ['what is none', () => ({ ca: 'fixed:r:sha256:zzz' }), /Cannot read a content address/],
  ])('proves nothing for %s', async (_, changes, problem) => {
    const claim = { tree: text.path, narHash: text.narHash, storePath: text.path, references: text.references, ca: text.ca ?? '', ...changes(text) }
    expect(await contradictionIn(claim)).toMatch(problem)
  })

  test('of a path that refers to itself is the one that Nix gives it', async () => {
    const rewritten = store.run('nix', 'store', 'make-content-addressed', '--json', built.path)
    const paths = Object.values((JSON.parse(rewritten) as { rewrites: Record<string, string> }).rewrites)
    const info = paths.map(path => infoOf(path)).find(({ path }) => path.endsWith('-built'))
    if (info === undefined) throw new Error(rewritten)
    expect(info.references).toContain(info.path)
    expect(await judge(info)).toMatchObject({ vouchedBy: 'content-address' })
  })

  test('of a path that refers to itself leaves its own name out', async () => {
    const hashPart = '0123456789abcdfghijklmnpqrsvwxyz'
    const nar = Buffer.from(`at ${hashPart} and ${hashPart}.`)
    const expected = Buffer.from(`at ${'\0'.repeat(32)} and ${'\0'.repeat(32)}.|3|40`)
    for (const size of [1, 2, 5, 31, 32, 33, 100]) {
      const pieces: Buffer[] = []
      for await (const piece of withoutSelf(inPieces(nar, size), hashPart)) pieces.push(Buffer.from(piece))
      expect(Buffer.concat(pieces).toString(), `${size} at a time`).toBe(expected.toString())
    }
  })
})

describe('the stage of the pipeline', () => {
  test('fails an image whose bytes are right, as a refusal', async () => {
    const { verdict, vouchedBy } = await verifyTree({ tree: built.path, expected: built.narHash, claims: [], trust: question(built) })
    expect(verdict).toMatchObject({ verdict: 'fail', reason: expect.stringMatching(/0 trusted keys signed/) as string })
    expect(isPolicyRefusal(verdict)).toBe(true)
    expect(vouchedBy).toBeNull()
  })

  test('is not the reason where the bytes are wrong as well', async () => {
    const dir = await temporaryDirectory()
    await mkdir(join(dir, 'tree'))
    await writeFile(join(dir, 'tree/file'), 'other bytes')
    const { verdict } = await verifyTree({ tree: join(dir, 'tree'), expected: built.narHash, claims: [], trust: question(built) })
    expect(verdict.reason).toContain('hashes to')
    expect(isPolicyRefusal(verdict)).toBe(false)
  })
})

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size))
}
