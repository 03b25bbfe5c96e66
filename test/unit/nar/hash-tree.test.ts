import { createHash } from 'node:crypto'
import { truncateSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { chunkTree, hashTree } from '../../../src/nar/hash-tree.ts'
import { chunksOfNar } from '../../helpers/chunks.ts'
import { directory, type Entry, narBytes, regular, symlink, type Tree } from '../../helpers/nar-bytes.ts'
import { plant, withTemporaryDirectory } from '../../helpers/trees.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

/** Enough files for a second thread, with large ones between them. */
function manyFiles(): ReturnType<typeof directory> {
  const entries: Entry[] = []
  for (let index = 0; index < 2500; index++) {
    const name = Buffer.from(`file-${String(index).padStart(5, '0')}`)
    const size = index % 500 === 499 ? 300_000 + index : index % 7 * 700
    entries.push({ name, tree: index % 50 === 3 ? symlink(`file-${index}`) : regular(Buffer.alloc(size, index), index % 3 === 0) })
  }
  return directory(entries)
}

describe('chunkTree', () => {
  it.each<[string, Tree]>([
    ['many files, several at the same time', manyFiles()],
    ['a file that one thread does alone', regular(randomOf(1, 3_000_000))],
    ['a file that two threads do', regular(randomOf(2, 21_000_001))],
    ['files of every size, and zeros', directory([0, 1, 100_000, 262_144, 262_145, 5_000_000].flatMap((size, index) => [
      { name: Buffer.from(`a${index}`), tree: regular(Buffer.alloc(size)) }, { name: Buffer.from(`b${index}`), tree: regular(randomOf(index + 1, size)) },
    ]).sort((a, b) => Buffer.compare(a.name, b.name)))],
  ])('gives the chunks of the NAR, beside its hash, of %s', async (_, tree) => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'tree'), tree)
      const nar = narBytes(tree)
      const expected = chunksOfNar(nar)
      for (const { narHash, chunks } of await Promise.all([1, 2, 3].map(() => chunkTree(join(scratch, 'tree'))))) {
        expect(narHash.toHex()).toBe(createHash('sha256').update(nar).digest('hex'))
        expect(chunks.columns).toEqual(expected.columns)
      }
    })
  })

  it('ends early when it is told to, and goes on with the next tree', async () => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'large'), regular(''))
      truncateSync(join(scratch, 'large'), 2 ** 40)
      const controller = new AbortController()
      await expect(chunkTree(join(scratch, 'large'), { signal: controller.signal, onProgress: () => { controller.abort(new Error('enough')) } })).rejects.toThrow('enough')
      truncateSync(join(scratch, 'large'), 5_000_000)
      expect((await chunkTree(join(scratch, 'large'))).chunks.columns).toEqual(chunksOfNar(narBytes(regular(Buffer.alloc(5_000_000)))).columns)
    })
  })
})

describe('hashTree', () => {
  it('gives the same for many files, again and again, also at the same time', async () => {
    await withTemporaryDirectory(async scratch => {
      const tree = manyFiles()
      plant(join(scratch, 'tree'), tree)
      const expected = createHash('sha256').update(narBytes(tree)).digest('hex')
      const results = await Promise.all(Array.from({ length: 5 }, () => hashTree(join(scratch, 'tree'))))
      results.push(await hashTree(join(scratch, 'tree')))
      for (const { narHash } of results) expect(narHash.toHex()).toBe(expected)
    })
  })

  it('tells its progress, and ends early when it is told to', async () => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'large'), regular(''))
      truncateSync(join(scratch, 'large'), 2 ** 40)
      const controller = new AbortController()
      const seen: number[] = []
      const hashing = hashTree(join(scratch, 'large'), {
        signal: controller.signal,
        onProgress: bytes => {
          seen.push(bytes)
          if (seen.length === 3) controller.abort(new Error('enough'))
        },
      })
      await expect(hashing).rejects.toThrow('enough')
      expect(seen).toEqual(seen.toSorted((a, b) => a - b))
      await expect(hashTree(scratch, { signal: AbortSignal.abort(new Error('never begun')) })).rejects.toThrow('never begun')
    })
  })
})
