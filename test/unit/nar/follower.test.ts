import { createHash } from 'node:crypto'
import { closeSync, copyFileSync, lstatSync, mkdirSync, openSync, renameSync, statSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { MAX_FOLLOWED_TREES, MIN_FOLLOWED_BYTES } from '../../../src/limits.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { Follower } from '../../../src/nar/follower.ts'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'
import { verifyTree } from '../../../src/verify/pipeline.ts'
import { chunksOfNar } from '../../helpers/chunks.ts'
import { directory, type Entry, narBytes, regular, symlink, type Tree } from '../../helpers/nar-bytes.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { plant } from '../../helpers/trees.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

/** Small files before and after a large one. */
function treeOf(files: number): Tree {
  return directory([
    ...Array.from({ length: files }, (_, index): Entry => ({ name: Buffer.from(`a${String(index).padStart(4, '0')}`), tree: regular(Buffer.alloc(index * 3, index)) })),
    { name: Buffer.from('disk'), tree: regular(randomOf(1, 2 * MIN_FOLLOWED_BYTES)) },
    { name: Buffer.from('link'), tree: symlink('disk') },
    { name: Buffer.from('rest'), tree: regular(randomOf(2, 1_500_000), true) },
  ])
}

const TREE = treeOf(20)
const NAR = narBytes(TREE)
const NAR_HASH = hashOf(NAR)
const PIECE = 300_000

function hashOf(nar: Buffer): NarHash {
  return NarHash.fromBytes(createHash('sha256').update(nar).digest())
}

describe('a tree that is hashed while it is received', () => {
  it('is found to be what it is when it is whole', async () => {
    const { writer, follower } = await receiving()
    await receive(writer, follower, 0, NAR.length)
    const followed = await finish(writer, follower)
    expect(followed?.narHash.toSri()).toBe(NAR_HASH.toSri())
    expect(followed?.chunks.columns).toEqual(chunksOfNar(NAR).columns)
    expect(lstatSync(join(writer.root, 'disk')).mode & 0o777).toBe(0o444)
  })

  it('is found to be what it is where it has more small files than one thread would read alone', async () => {
    const tree = treeOf(1200)
    const nar = narBytes(tree)
    const { writer, follower } = await receiving({ tree })
    await receive(writer, follower, 0, nar.length, nar)
    expect((await finish(writer, follower))?.narHash.toSri()).toBe(hashOf(nar).toSri())
  })

  it('is hashed from its first byte when an earlier run has received some of it', async () => {
    const first = await receiving()
    await receive(first.writer, first.follower, 0, NAR.length / 2)
    await Promise.all([first.writer.close(), first.follower.stop()])
    const { writer, follower } = await receiving({ root: first.writer.root })
    follower.advance(NAR.length / 2)
    await receive(writer, follower, NAR.length / 2, NAR.length)
    expect((await finish(writer, follower))?.narHash.toSri()).toBe(NAR_HASH.toSri())
  })

  it('is hashed up to the frontier, and no further', async () => {
    const { writer, follower } = await receiving()
    await receive(writer, follower, 0, NAR.length / 2)
    await hashedUpTo(follower, NAR.length / 2)
    expect(follower.hashed).toBeLessThanOrEqual(NAR.length / 2)
    await Promise.all([writer.close(), follower.stop()])
    expect(await follower.seal()).toBeUndefined()
  })

  it.each<[string, (file: string) => void]>([
    ['with a byte that is changed', file => { alter(file, 5000) }],
    ['with a file that is replaced by the same bytes', file => {
      copyFileSync(file, `${file}.new`)
      renameSync(`${file}.new`, file)
    }],
  ])('counts for nothing %s behind the frontier, in a file that was whole', async (_, change) => {
    const { writer, follower } = await receiving()
    await receive(writer, follower, 0, NAR.length - PIECE)
    await hashedUpTo(follower, NAR.length - PIECE)
    change(join(writer.root, 'disk'))
    await receive(writer, follower, NAR.length - PIECE, NAR.length)
    expect(await finish(writer, follower)).toBeUndefined()
  })

  it('counts for nothing with a byte that is changed in the file that is being written', async () => {
    const { writer, follower } = await receiving()
    const most = MIN_FOLLOWED_BYTES
    await receive(writer, follower, 0, most)
    await hashedUpTo(follower, most)
    alter(join(writer.root, 'disk'), 5000)
    await receive(writer, follower, most, NAR.length)
    expect(await finish(writer, follower)).toBeUndefined()
  })

  it.each<[string, (root: string) => void]>([
    ['with a file that is not of it', root => { writeFileSync(join(root, 'stranger'), '') }],
    ['with a directory that is not of it', root => { mkdirSync(join(root, 'stranger')) }],
    ['without a symlink that is of it', root => { unlinkSync(join(root, 'link')) }],
  ])('counts for nothing %s', async (_, change) => {
    const { writer, follower } = await receiving()
    await receive(writer, follower, 0, NAR.length)
    change(writer.root)
    const followed = await finish(writer, follower)
    const proof = await verifyTree({ tree: writer.root, expected: NAR_HASH, claims: [], followed })
    expect(proof.verdict.verdict).toBe('fail')
    expect(proof.measured?.narSize).not.toBe(NAR.length)
  })

  it('is sealed only where as many others are followed as may be', async () => {
    const others = await Promise.all(Array.from({ length: MAX_FOLLOWED_TREES }, () => receiving()))
    for (const { follower } of others) follower.advance(MIN_FOLLOWED_BYTES)
    const { writer, follower } = await receiving()
    await receive(writer, follower, 0, NAR.length)
    expect(await finish(writer, follower)).toBeUndefined()
    expect(lstatSync(join(writer.root, 'disk')).mode & 0o777).toBe(0o444)
    await Promise.all(others.map(other => Promise.all([other.writer.close(), other.follower.stop()])))
    const next = await receiving()
    await receive(next.writer, next.follower, 0, NAR.length)
    expect((await finish(next.writer, next.follower))?.narHash.toSri()).toBe(NAR_HASH.toSri())
  })

  it('is sealed only where all of it comes at once, or too little of it in order', async () => {
    const { writer, follower } = await receiving()
    await writer.write(0, NAR.subarray(0, PIECE))
    follower.advance(MIN_FOLLOWED_BYTES - 1)
    await writer.write(PIECE, NAR.subarray(PIECE))
    expect(await finish(writer, follower)).toBeUndefined()
    expect(follower.hashed).toBe(0)
    expect(lstatSync(join(writer.root, 'disk')).mode & 0o777).toBe(0o444)
  })

  it('is left alone when the signal says so', async () => {
    const { writer, follower } = await receiving()
    const controller = new AbortController()
    const sealing = follower.seal({ signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(sealing).rejects.toThrow('enough')
    await writer.close()
  })
})

async function receiving({ root, tree = TREE }: { root?: string, tree?: Tree } = {}): Promise<{ writer: TreeWriter, follower: Follower }> {
  const scratch = await temporaryDirectory()
  plant(join(scratch, 'source'), tree)
  const writer = await TreeWriter.open(root ?? join(scratch, 'root'), Layout.of(await scanTree(join(scratch, 'source'))))
  return { writer, follower: new Follower(writer) }
}

async function receive(writer: TreeWriter, follower: Follower, from: number, to: number, nar = NAR): Promise<void> {
  for (let at = from; at < to; at += PIECE) {
    const end = Math.min(to, at + PIECE)
    await writer.write(at, nar.subarray(at, end))
    follower.advance(end)
  }
}

async function finish(writer: TreeWriter, follower: Follower): ReturnType<Follower['seal']> {
  await writer.close()
  return follower.seal()
}

/** Until all was hashed but for a piece that is not whole yet. */
async function hashedUpTo(follower: Follower, offset: number): Promise<void> {
  await vi.waitFor(() => { expect(follower.hashed).toBeGreaterThan(offset - 2 * 1024 * 1024) }, PATIENCE_MS)
}

/** Changes a byte of a file, a moment later than whoever wrote to it last, as the file system counts moments. */
function alter(file: string, position: number): void {
  const before = statSync(file).ctimeMs
  const fd = openSync(file, 'r+')
  while (statSync(file).ctimeMs === before) writeSync(fd, Buffer.from([0xff]), 0, 1, position)
  closeSync(fd)
}
