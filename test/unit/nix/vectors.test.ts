import { createHash, type Hash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { restoreNar } from '../../../src/nar/restore.ts'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { contentAddressToJson, formatContentAddress, parseContentAddress } from '../../../src/nix/content-address.ts'
import { formatHash, parseHash } from '../../../src/nix/hash.ts'
import { formatNarInfo, parseNarInfo } from '../../../src/nix/narinfo.ts'
import { parsePathInfo, parsePathInfoEntry } from '../../../src/nix/path-info.ts'
import { checkSignatures, fingerprintOf, parsePublicKey, tryParseSignature } from '../../../src/nix/signature.ts'
import { tryParseBaseName } from '../../../src/nix/store-path.ts'
import { WorkerClient } from '../../../src/nix/worker/client.ts'
import { WireReader, WireWriter } from '../../../src/nix/worker/wire.ts'
import { streamOf, withTemporaryDirectory } from '../../helpers/trees.ts'

/**
 * Files of NARVIK_VECTORS other than NARs, a directory with an INDEX.md of tables `| file | bytes | hash | expected |` below headings that name folders.
 * Every file that is listed must have a judge, or be named among those that are no business of Narvik's: none is passed over in silence.
 */
const ROOT = process.env['NARVIK_VECTORS'] ?? ''
const listed = ROOT === '' ? [] : readIndex()

interface Listed { readonly path: string, readonly bytes: number, readonly hash: string }

function readIndex(): Listed[] {
  const files: Listed[] = []
  let folder = ''
  for (const line of readFileSync(join(ROOT, 'INDEX.md'), 'utf8').split('\n')) {
    if (line.startsWith('## ')) folder = line.slice(3).trim()
    const [, file = '', bytes = '', hash = ''] = line.split('|').map(cell => cell.trim())
    if (line.startsWith('| ') && /^\d+$/.test(bytes)) files.push({ path: `${folder}/${file}`, bytes: Number(bytes), hash })
  }
  return files
}

const read = (path: string): Buffer => readFileSync(join(ROOT, path))
const json = (path: string): unknown => JSON.parse(read(path).toString('utf8'))

type Judge = (path: string) => unknown

/** The first that matches. NARs are restored by the runner of test/unit/nar/vectors.test.ts, entries of path-info are read by path-info.test.ts as well. */
const JUDGES: readonly (readonly [RegExp, Judge])[] = [
  [/\/nar\/[^/]+\.nar$/, path => { expect(formatHash({ algorithm: 'sha256', bytes: sha256(read(path)).digest() }, 'nix32')).toBe(basename(path, '.nar')) }],
  [/\.nar$/, path => { expect(listed.map(file => file.path)).toContain(path) }],
  [/\.narinfo$/, judgeNarInfo],
  [/\.public$/, path => { expect(parsePublicKey(read(path).toString('utf8').trim()).name).toBe(basename(path, '.public')) }],
  [/\.ls$/, judgeListing],
  [/local-nix-2\.8\/path-info\/.*\.json$/, judgeAnswer],
  [/^nix[^/]*\/(?:path|nar)-info\//, judgeEntry],
  [/\/hash\/[^/]+\.json$/, path => { expect(formatHash(parseHash(json(path) as string), 'sri')).toBe(json(path)) }],
  [/nix\/content-address\/[^/]+\.json$/, path => { expect(addressed(json(path))).toBe(formatContentAddress(parseContentAddress(addressed(json(path))))) }],
  [/\/store-path\/[^/]+\.json$/, path => { expect(tryParseBaseName(json(path) as string)).toBeDefined() }],
  [/\/signature-v2\/[^/]+\.json$/, judgeSignature],
  [/-protocol\/(?:string|set|vector)\.bin$/, path => judgeWire(path, value => value)],
  [/-protocol\/(?:optional-)?store-path\.bin$/, path => judgeWire(path, value => value === null ? '' : `/nix/store/${value as string}`)],
  [/-protocol\/(?:optional-)?content-address\.bin$/, path => judgeWire(path, value => value === null ? '' : addressed(value))],
  [/worker-protocol\/optional-trusted-flag\.bin$/, path => judgeWire(path, value => value === null ? 0 : value === true ? 1 : 2)],
  [/worker-protocol\/valid-path-info-1\.16\.bin$/, judgeRegistered],
  [/worker-protocol\/handshake-to-client\.bin$/, async path => {
    await expect(WorkerClient.open(channelOf(read(path)))).rejects.toThrow('found protocol 1.10, needed 1.32 (Nix 2.4) or newer')
  }],
  [/worker-protocol\/client-handshake-info_1_3[035]\.bin$/, judgeHandshake],
  // The values of the .bin beside it.
  [/-protocol\/(?:string|set|vector|(?:optional-)?(?:store-path|content-address)|optional-trusted-flag|valid-path-info-1\.16)\.json$/, path => { expect(listed.map(file => file.path)).toContain(path.replace(/json$/, 'bin')) }],
]

/** What Narvik neither reads nor writes. */
const FOREIGN: readonly (readonly [RegExp, string])[] = [
  [/\/nar-listing\//, 'listings in the JSON of `nix nar ls`, which no part of Narvik takes'],
  [/\/export\//, 'streams of nix-store --export: images come and go through the worker protocol'],
  [/nix-cache-info$/, 'that of a binary cache, which Narvik neither is nor asks'],
  [/\/realisation\//, 'realisations: Narvik has no derivations'],
  [/\/schema\//, 'descriptions, and no cases'],
  [/-protocol\/(?:build-|keyed-build-|derived-path|drv-output|realisation|unkeyed-realisation)/, 'of building, which Narvik does not ask for'],
  [/(?:unkeyed-)?valid-path-info-1\.15\./, 'a protocol older than 1.32, which is refused at the handshake'],
]

/** Of a path: whether it is judged, and how many reasons there are why not. */
function standingOf(path: string): [judges: number, reasons: number] {
  return [JUDGES.some(([pattern]) => pattern.test(path)) ? 1 : 0, FOREIGN.filter(([pattern]) => pattern.test(path)).length]
}

test.each<[string, [number, number]]>([
  ['nix/nar-info/pure.json', [1, 0]],
  ['nix/hash/sha256.json', [1, 0]],
  ['nix/worker-protocol/valid-path-info-1.16.bin', [1, 0]],
  ['nix/worker-protocol/valid-path-info-1.15.bin', [0, 1]],
  ['nix/realisation/simple.json', [0, 1]],
  ['nix/something/new.bin', [0, 0]],
])('a file of others, %s, has one judge, or one reason why it has none, or is missed', (path, standing) => {
  expect(standingOf(path)).toEqual(standing)
})

if (ROOT !== '') {
  describe('the files of NARVIK_VECTORS', () => {
    test('are there', () => {
      const there = new Set(filesOf())
      expect(listed.filter(({ path }) => !there.has(path))).toEqual([])
    })

    test.each(filesOf())('%s', async path => {
      const known = listed.find(file => file.path === path)
      // What is listed is what was meant; a file beside the list is no less to be judged.
      if (known !== undefined) expect([read(path).length, sha256(read(path)).digest('hex').slice(0, 16)]).toEqual([known.bytes, known.hash])
      expect([[1, 0], [0, 1]], 'has one judge, or one reason why it has none').toContainEqual(standingOf(path))
      await JUDGES.find(([pattern]) => pattern.test(path))?.[1](path)
    })
  })
}

function filesOf(): string[] {
  return readdirSync(ROOT, { withFileTypes: true, recursive: true }).filter(each => each.isFile()).map(each => relative(ROOT, join(each.parentPath, each.name))).filter(path => !/(?:^INDEX\.md|cases\.json)$/.test(path))
}

function sha256(bytes: Uint8Array): Hash {
  return createHash('sha256').update(bytes)
}

function judgeNarInfo(path: string): void {
  const text = read(path).toString('utf8')
  const info = parseNarInfo(text)
  const key = parsePublicKey(readFileSync(join(ROOT, path, '../research.example-1.public'), 'utf8').trim())
  const fingerprint = fingerprintOf({ ...info, path: info.storePath })
  expect(checkSignatures(fingerprint, info.signatures, [key]).map(({ verdict }) => verdict)).toEqual(['good'])
  expect(parseNarInfo(formatNarInfo(info))).toEqual(info)
  expect(sha256(read(join(path, '..', info.url))).digest()).toEqual(Buffer.from(info.narHash.bytes))
}

interface Node { readonly type: string, readonly size?: number, readonly executable?: boolean, readonly target?: string, readonly narOffset?: number, readonly entries?: Record<string, Node> }

/** What Nix says of where the contents of each file begin in the NAR is what the layout says. */
async function judgeListing(path: string): Promise<void> {
  const { root } = json(path) as { root: Node }
  const info = parseNarInfo(read(path.replace(/ls$/, 'narinfo')).toString('utf8'))
  await withTemporaryDirectory(async directory => {
    await restoreNar(streamOf(read(join(path, '..', info.url)), 64), join(directory, 'out'))
    const listing = await scanTree(join(directory, 'out'))
    const layout = Layout.of(listing)
    const found = Array.from({ length: listing.count }, (_, entry) => ({
      at: listing.show(entry), type: listing.kind(entry),
      ...listing.kind(entry) === 'regular' && { size: listing.size(entry), executable: listing.executable(entry), ...listing.size(entry) > 0 && { narOffset: layout.contentsOffset(entry) } },
      ...listing.kind(entry) === 'symlink' && { target: Buffer.from(listing.target(entry)).toString('utf8') },
    }))
    expect(found).toEqual(flatten(root, '.'))
  })
}

function flatten(node: Node, at: string): unknown[] {
  const { entries = {}, type, size = 0, executable = false, target, narOffset } = node
  const own = { at, type, ...type === 'regular' && { size, executable, ...size > 0 && { narOffset } }, ...type === 'symlink' && { target } }
  return [own, ...Object.entries(entries).flatMap(([name, child]) => flatten(child, at === '.' ? name : `${at}/${name}`))]
}

function judgeAnswer(path: string): void {
  const entries = json(path) as { path: string, valid?: boolean, narHash?: string, narSize?: number, references?: string[], ca?: string, signatures?: string[] }[]
  const infos = parsePathInfo(read(path).toString('utf8'))
  expect([...infos.keys()]).toEqual(entries.map(entry => entry.path))
  for (const { path: of, valid, narHash, narSize, references, ca, signatures } of entries) {
    const info = infos.get(of)
    if (valid === false) expect(info).toBeNull()
    else expect([info?.narHash.toSri(), info?.narSize, info?.references, info?.ca ?? undefined, info?.signatures]).toEqual([narHash, narSize, references, ca, signatures ?? []])
  }
}

function judgeEntry(path: string): void {
  const value = json(path) as { version?: number, storeDir?: string, narHash: unknown, narSize: number }
  const names = (value.version ?? 1) >= 2 ? 'base' : 'full'
  const info = parsePathInfoEntry('/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-x', value, { storeDir: value.storeDir ?? '/nix/store', names })
  expect(info.narSize).toBe(value.narSize)
}

interface Signed { readonly keyName: string, readonly sig: string }

/** It is kept as it came; that it has 66 bytes, and so is no Ed25519 signature, is for the policy to say. */
function judgeSignature(path: string): void {
  const { keyName, sig } = json(path) as Signed
  const { signatures } = parsePathInfoEntry('/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-x', { narHash: `sha256-${Buffer.alloc(32).toString('base64')}`, narSize: 1, references: [], signatures: [{ keyName, sig }] }, { storeDir: '/nix/store', names: 'full' })
  expect(signatures).toEqual([`${keyName}:${sig}`])
  expect(tryParseSignature(signatures[0] ?? '') === undefined).toBe(Buffer.from(sig, 'base64').length !== 64)
}

function addressed(value: unknown): string {
  const { method, hash } = value as { method: 'text' | 'nar' | 'flat' | 'git', hash: string }
  const text = formatContentAddress({ method, hash: parseHash(hash) })
  expect(contentAddressToJson(parseContentAddress(text))).toEqual({ method, hash })
  return text
}

function streamed(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  return streamOf(Buffer.from(bytes), 5)
}

/** Values one after another: what is read from them is written back to the same bytes. */
async function judgeWire(path: string, toWire: (value: unknown) => unknown): Promise<void> {
  const values = (json(path.replace(/bin$/, 'json')) as unknown[]).map(value => Array.isArray(value) ? value : toWire(value))
  const writer = new WireWriter()
  for (const value of values) write(writer, value)
  expect(writer.bytes()).toEqual(read(path))
  const reader = new WireReader(streamed(read(path)))
  for (const value of values) expect(await readLike(reader, value)).toEqual(value)
  await expect(reader.u64()).rejects.toThrow('the end')
}

function write(writer: WireWriter, value: unknown): void {
  if (typeof value === 'number') writer.u64(value)
  else if (typeof value === 'string') writer.text(value)
  else {
    writer.u64((value as unknown[]).length)
    for (const item of value as unknown[]) write(writer, item)
  }
}

async function readLike(reader: WireReader, value: unknown): Promise<unknown> {
  if (typeof value === 'number') return reader.u64()
  if (typeof value === 'string') return reader.text()
  const items = value as unknown[]
  let at = 0
  return reader.list(() => readLike(reader, items[at++] ?? ''))
}

const LAST = 0x616c7473

function channelOf(bytes: Uint8Array): { output: AsyncIterable<Uint8Array>, write: () => Promise<void> } {
  return { output: streamed(bytes), write: () => Promise.resolve() }
}

interface Entry { readonly path: string, readonly deriver: string | null, readonly narHash: string, readonly narSize: number, readonly references: string[], readonly registrationTime: number, readonly ultimate: boolean, readonly signatures: Signed[], readonly ca: unknown }

/** Each is the answer to a question: what it says is what stands in the JSON, and written anew it is the same bytes. */
async function judgeRegistered(path: string): Promise<void> {
  const full = (name: string): string => `/nix/store/${name}`
  const all: Buffer[] = []
  const answers: Buffer[] = [new WireWriter().u64(0x6478696f).u64(1 << 8 | 32).u64(LAST).bytes()]
  const expected: unknown[] = []
  for (const entry of json(path.replace(/bin$/, 'json')) as Entry[]) {
    const { narHash, narSize, registrationTime, ultimate } = entry
    const [deriver, references, ca] = [entry.deriver === null ? null : full(entry.deriver), entry.references.map(full), entry.ca === null ? null : addressed(entry.ca)]
    const signatures = entry.signatures.map(({ keyName, sig }) => `${keyName}:${sig}`)
    const unkeyed = new WireWriter().text(deriver ?? '').text(Buffer.from(NarHash.parse(narHash).bytes).toString('hex')).texts(references).u64(registrationTime).u64(narSize).bool(ultimate).texts(signatures).text(ca ?? '').bytes()
    all.push(new WireWriter().text(full(entry.path)).bytes(), unkeyed)
    answers.push(new WireWriter().u64(LAST).bool(true).bytes(), unkeyed)
    expected.push({ path: full(entry.path), deriver, narHash, narSize, references: references.toSorted(), registrationTime, ultimate, signatures, ca })
  }
  expect(Buffer.concat(all)).toEqual(read(path))
  const client = await WorkerClient.open(channelOf(Buffer.concat(answers)))
  for (const each of expected) {
    const info = await client.pathInfo((each as Entry).path)
    expect({ ...info, narHash: info?.narHash.toSri() }).toEqual(each)
  }
}

/** What the daemon says of itself is taken off exactly, so that what comes next is understood. */
async function judgeHandshake(path: string): Promise<void> {
  const minor = Number(/1_(\d+)/.exec(path)?.[1])
  const infos = minor === 30 ? [Buffer.alloc(0)] : split(read(path))
  for (const info of infos) {
    // 1.30 says nothing of itself, like 1.32.
    const hello = new WireWriter().u64(0x6478696f).u64(1 << 8 | (minor === 30 ? 32 : minor)).bytes()
    const client = await WorkerClient.open(channelOf(Buffer.concat([hello, info, new WireWriter().u64(LAST).u64(LAST).texts(['/nix/store/x']).bytes()])))
    expect(await client.validPaths([])).toEqual(new Set(['/nix/store/x']))
  }
}

function split(bytes: Buffer): Buffer[] {
  return [bytes.subarray(0, bytes.length / 2), bytes.subarray(bytes.length / 2)]
}
