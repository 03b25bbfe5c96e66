<<<<<<< HEAD
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { finished } from 'node:stream/promises'
import { join } from 'node:path'

/** A tree with everything that a NAR can express, and the names that other tools trip over. */
export async function makeOddTree(root: string): Promise<void> {
  await mkdir(join(root, 'sub', 'deep', 'er'), { recursive: true })
  await mkdir(join(root, 'empty-directory'))
  await writeFile(join(root, 'plain.txt'), 'hello\n')
  await writeFile(join(root, 'empty'), '')
  await writeFile(join(root, 'run.sh'), '#!/bin/sh\necho hi\n')
  await chmod(join(root, 'run.sh'), 0o755)
  await writeFile(join(root, 'group-executable'), 'not executable to Nix')
  await chmod(join(root, 'group-executable'), 0o654)
  await writeFile(join(root, 'sub', 'deep', 'er', 'seven'), '1234567')
  await writeFile(join(root, 'sub', 'eight'), '12345678')
  await symlink('plain.txt', join(root, 'link'))
  await symlink('../../outside/nowhere', join(root, 'dangling'))
  await symlink('/etc/passwd', join(root, 'sub', 'absolute'))
  for (const name of ['B', 'a', 'Z z', 'new\nline', 'back\\slash', 'ünïcode', '😀', '\uffee', '-dash', '.hidden', '~nix~case~hack~1', 'x'.repeat(255)]) {
    await writeFile(join(root, name), name)
  }
  await writeFile(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe, 0x80])]), 'not UTF-8')
}

/** Files of random sizes around small boundaries, spread over directories of a hundred. */
export async function makeManyFiles(root: string, count: number): Promise<void> {
  await mkdir(root)
  for (let first = 0; first < count; first += 100) {
    const dir = join(root, `d${first / 100}`)
    await mkdir(dir)
    const files = Array.from({ length: Math.min(100, count - first) }, (_, index) => first + index)
    await Promise.all(files.map(index => writeFile(join(dir, `file-${index}`), `${index}`.repeat(index % 97))))
  }
}

/** A raw disk of `size` bytes: pseudo-random blocks, with a stretch of zeros as disks have them. */
export async function makeRawDisk(file: string, size: number, seed = 1): Promise<void> {
  const stream = createWriteStream(file)
  const block = 1024 * 1024
  for (let at = 0; at < size; at += block) {
    const bytes = Buffer.alloc(Math.min(block, size - at))
    if (at / block % 8 !== 7) fill(bytes, seed * 2_654_435_761 + at)
    if (!stream.write(bytes)) await once(stream, 'drain')
  }
  stream.end()
  await finished(stream)
}

/** Xorshift: the same bytes for the same seed, fast, and nothing like zeros. */
function fill(bytes: Buffer, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  let state = (seed >>> 0) || 1
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state >>> 0
  }
}
=======
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
>>>>>>> nar
