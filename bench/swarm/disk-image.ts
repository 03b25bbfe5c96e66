import { copyFileSync, createReadStream, createWriteStream, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { execa } from 'execa'
import { Random } from './random.ts'

const KIB = 1024
const MIB = 1024 * KIB
/** ext4's, at which its files begin. */
const BLOCK = 4 * KIB
/** The same for every image of a size and a random number. */
const SUPERBLOCK = ['-U', '5c6bd5a8-5e0a-4ac0-9b0c-d0c5ecf3a1f4', '-E', 'hash_seed=5c6bd5a8-5e0a-4ac0-9b0c-d0c5ecf3a1f4,lazy_itable_init=0,nodiscard']
/** Shares of the disk. */
const FILLED = 0.65
const REWRITTEN = 0.03
const ADDED = 0.02
const INSERTED = 0.01

export interface Versions {
  readonly old: string
  readonly next: string
  /** Bytes of the next version that the old one doesn't have at their place, before anything is inserted, in whole blocks; and those that are inserted. */
  readonly changed: { readonly rewritten: number, readonly added: number, readonly inserted: number }
}

/**
 * Makes a raw disk with an ext4 file system of files of all sizes, some of text, some that nothing compresses, some with holes; and its next
 * version: files added by the file system's own tools, a contiguous part rewritten, and bytes inserted, so that all behind them moves.
 */
export async function plantVersions(dir: string, size: number, number: number): Promise<Versions> {
  const random = new Random(number, 'disk')
  const [old, changed, next] = [join(dir, 'old.raw'), join(dir, 'changed.raw'), join(dir, 'next.raw')]
  const files = join(dir, 'files')
  plantTree(files, size * FILLED, random)
  await execa('mkfs.ext4', ['-q', ...SUPERBLOCK, '-d', files, old, `${size / KIB}k`], { env: { E2FSPROGS_FAKE_TIME: '1600000000' } })
  await rm(files, { recursive: true })

  copyFileSync(old, changed)
  await addFiles(changed, { dir: join(dir, 'added'), bytes: size * ADDED, random })
  const added = await differingBytes(old, changed)
  const place = Math.floor(size * 0.3 / BLOCK) * BLOCK
  await rewrite(changed, place, programOf(random, Math.floor(size * REWRITTEN / BLOCK) * BLOCK))
  const both = await differingBytes(old, changed)
  // Between blocks, as nothing says that what moves does so by whole ones.
  const inserted = programOf(random, Math.floor(size * INSERTED) + 1234)
  await insert(changed, next, Math.floor(size * 0.55) + 567, inserted)
  await rm(changed)
  return { old, next, changed: { rewritten: both - added, added, inserted: inserted.length } }
}

/** Directories of files whose sizes double from one kind to the next, from less than a block to some MiB. */
function plantTree(root: string, bytes: number, random: Random): void {
  mkdirSync(root)
  let planted = 0
  for (let number = 0; planted < bytes; number++) {
    const directory = join(root, `directory-${Math.floor(number / 64)}`)
    if (number % 64 === 0) mkdirSync(directory)
    const exponent = random.between(9, 22)
    const content = contentOf(random, random.between(2 ** exponent, 2 ** (exponent + 1)))
    writeFileSync(join(directory, `file-${number}`), content)
    planted += Math.ceil(content.length / BLOCK) * BLOCK
  }
}

/** As debugfs writes them: into blocks that are free, with their inodes, their directory and the maps of what is used. */
async function addFiles(disk: string, { dir, bytes, random }: { dir: string, bytes: number, random: Random }): Promise<void> {
  mkdirSync(dir)
  const count = 16
  const commands = Array.from({ length: count }, (_, number) => {
    const file = join(dir, `added-${number}`)
    writeFileSync(file, contentOf(random, Math.ceil(bytes / count)))
    return `write ${file} added-${number}`
  })
  const script = join(dir, 'script')
  writeFileSync(script, `${commands.join('\n')}\n`)
  const { stderr } = await execa('debugfs', ['-w', '-f', script, disk])
  if (/error|could not|no free/i.test(stderr)) throw new Error(`Cannot add files to ${disk}: ${stderr}`)
  await rm(dir, { recursive: true })
}

async function rewrite(disk: string, offset: number, content: Uint8Array): Promise<void> {
  await using file = await open(disk, 'r+')
  await file.write(content, 0, content.length, offset)
}

async function insert(from: string, to: string, offset: number, content: Uint8Array): Promise<void> {
  await pipeline(createReadStream(from, { end: offset - 1 }), createWriteStream(to))
  await using file = await open(to, 'a')
  await file.write(content)
  await pipeline(createReadStream(from, { start: offset }), createWriteStream(to, { flags: 'a' }))
}

/** Bytes in the blocks of one disk that are others than those of another. */
async function differingBytes(one: string, other: string): Promise<number> {
  await using a = await open(one)
  await using b = await open(other)
  const [left, right] = [Buffer.alloc(MIB), Buffer.alloc(MIB)]
  let differing = 0
  for (let offset = 0; offset < statSync(one).size; offset += MIB) {
    await Promise.all([a.read(left, 0, MIB, offset), b.read(right, 0, MIB, offset)])
    if (left.equals(right)) continue
    for (let at = 0; at < MIB; at += BLOCK) if (!left.subarray(at, at + BLOCK).equals(right.subarray(at, at + BLOCK))) differing += BLOCK
  }
  return differing
}

/** What files are made of: text, what is compressed already, and programs. */
function contentOf(random: Random, length: number): Buffer {
  const kind = random.pick(['text', 'packed', 'program'])
  if (kind === 'text') return textOf(random, length)
  return kind === 'packed' ? random.bytes(length) : programOf(random, length)
}

/** Text, what nothing compresses, and zeros, side by side. */
function programOf(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length;) {
    const run = random.between(64, 32 * KIB)
    const part = random.pick(['text', 'packed', 'zeros'])
    if (part === 'text') textOf(random, Math.min(run, length - at)).copy(bytes, at)
    if (part === 'packed') random.bytes(Math.min(run, length - at)).copy(bytes, at)
    at += run
  }
  return bytes
}

const WORDS = 'image host peer chunk byte hash tree file link name path store seed swarm the of and to in is that for with as by on from at or an be not are'.split(' ')

/** Words in a random order: no two runs are the same, and each byte says little. */
function textOf(random: Random, length: number): Buffer {
  const text = Buffer.alloc(length)
  const choices = random.bytes(Math.ceil(length / 3) + 1)
  for (let at = 0, word = 0; at < length; word++) at += text.write(`${WORDS[(choices[word] ?? 0) % WORDS.length] ?? ''} `, at)
  return text
}
