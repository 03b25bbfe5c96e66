import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { removeTree } from '../../src/nar/remove.ts'
import type { Entry, Tree } from './nar-bytes.ts'

/** Runs `action` with a new directory that is gone afterwards. */
export async function withTemporaryDirectory<T>(action: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'narvik-test-'))
  try {
    return await action(directory)
  } finally {
    await removeTree(directory)
  }
}

/** `bytes` in buffers of at most `size` bytes. */
export async function* streamOf(bytes: Uint8Array, size = 65536): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += size) yield Promise.resolve(bytes.subarray(at, at + size))
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of source) parts.push(part)
  return Buffer.concat(parts)
}

/** Makes the tree on disk, in the plainest way. */
export function plant(path: string | Buffer, tree: Tree): void {
  switch (tree.kind) {
    case 'regular':
      writeFileSync(path, tree.contents)
      chmodSync(path, tree.executable ? 0o755 : 0o644)
      return
    case 'symlink':
      symlinkSync(Buffer.from(tree.target), path)
      return
    case 'directory':
      mkdirSync(path)
      for (const { name, tree: child } of tree.entries) plant(Buffer.concat([Buffer.from(path), Buffer.from('/'), name]), child)
  }
}

/** The tree that is on disk, read in the plainest way. */
export function harvest(path: string | Buffer): Tree {
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) return { kind: 'symlink', target: readlinkSync(path, { encoding: 'buffer' }) }
  if (stat.isFile()) return { kind: 'regular', contents: readFileSync(path), executable: (stat.mode & 0o100) !== 0 }
  const names = readdirSync(path, { encoding: 'buffer' }).sort((a, b) => Buffer.compare(a, b))
  return { kind: 'directory', entries: names.map(name => ({ name, tree: harvest(Buffer.concat([Buffer.from(path), Buffer.from('/'), name])) })) }
}

export function discard(path: string): void {
  rmSync(path, { recursive: true, force: true })
}

const nameByte = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...Buffer.from('abAB01.-_~ ')) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 255 }).filter(byte => byte !== 0x2f) },
)
const name = fc.oneof(
  { weight: 8, arbitrary: fc.array(nameByte, { minLength: 1, maxLength: 10 }) },
  { weight: 1, arbitrary: fc.array(nameByte, { minLength: 240, maxLength: 255 }) },
).map(bytes => Buffer.from(bytes)).filter(bytes => bytes.toString('latin1') !== '.' && bytes.toString('latin1') !== '..')

const target = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 20 }),
  fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 4090, maxLength: 4095 }),
).map(bytes => Buffer.from(bytes))

/** Around each boundary: of padding, of blocks, of buffers. */
const size = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 40 }) },
  { weight: 2, arbitrary: fc.constantFrom(4096, 8192, 65536, 262144, 1048576).chain(edge => fc.integer({ min: edge - 9, max: edge + 9 })) },
)
/** Bytes that tell by their value where they belong, with blocks of zeros here and there. */
const contents = fc.tuple(size, fc.nat({ max: 255 }), fc.boolean()).map(([length, seed, hasHoles]) => {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at++) bytes[at] = hasHoles && (at >> 13) % 2 === 1 ? 0 : (at * 31 + (at >> 8) + seed) & 255
  return bytes
})

const { tree } = fc.letrec<{ tree: Tree, leaf: Tree, directory: Tree }>(tie => ({
  tree: fc.oneof({ depthSize: 'small', withCrossShrink: true }, tie('leaf'), tie('directory')),
  leaf: fc.oneof(
    fc.record({ kind: fc.constant('regular' as const), contents, executable: fc.boolean() }),
    fc.record({ kind: fc.constant('symlink' as const), target }),
  ),
  directory: fc.array(fc.record({ name, tree: tie('tree') }), { maxLength: 8 }).map(entries => ({ kind: 'directory' as const, entries: canonical(entries) })),
}))

/** Any tree, with odd names, deep nesting, empty things and files of every size that matters. */
export const anyTree: fc.Arbitrary<Tree> = tree

function canonical(entries: Entry[]): Entry[] {
  const byName = new Map(entries.map(entry => [Buffer.from(entry.name).toString('latin1'), entry]))
  return [...byName.values()].sort((a, b) => Buffer.compare(a.name, b.name))
}
