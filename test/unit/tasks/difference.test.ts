import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Manifest } from '../../../src/image/manifest.ts'
import { ChunkList } from '../../../src/image/chunk-list.ts'
import { chunkTree } from '../../../src/nar/hash-tree.ts'
import { describeDifference } from '../../../src/tasks/difference.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

async function plant(): Promise<string> {
  const tree = join(await temporaryDirectory(), 'tree')
  mkdirSync(join(tree, 'a', 'deep'), { recursive: true })
  writeFileSync(join(tree, 'a', 'deep', 'one'), 'one')
  writeFileSync(join(tree, 'a', 'two'), 'two')
  writeFileSync(join(tree, 'disk'), randomOf(1, 2_000_000))
  symlinkSync('disk', join(tree, 'link'))
  return tree
}

async function flip(path: string, position: number): Promise<void> {
  const handle = await open(path, 'r+')
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, position)
  await handle.write(Buffer.of((buffer[0] ?? 0) ^ 1), 0, 1, position)
  await handle.close()
}

it.each<[string, (tree: string) => unknown, string | RegExp | undefined]>([
  ['nothing', () => undefined, undefined],
  ['a byte of a large file', tree => flip(join(tree, 'disk'), 1_000_000), /^[12] of its \d+ chunks differ \(\d+ bytes\), the first at byte \d+ of the NAR, in disk$/],
  ['a byte of one of some small files', tree => flip(join(tree, 'a', 'two'), 0), /^[12] of its \d+ chunks differ \(\d+ bytes\), the first at byte 0 of the NAR, in one of a\/deep\/one to disk$/],
  ['a file that is gone from the end of a directory', tree => { unlinkSync(join(tree, 'a', 'two')) }, 'a/two is missing'],
  ['a file that is gone from a directory of its own', tree => { unlinkSync(join(tree, 'a', 'deep', 'one')) }, 'a/deep/one is missing'],
  ['a directory that is gone', tree => { rmSync(join(tree, 'a'), { recursive: true }) }, 'a is missing'],
  ['the last entry that is gone', tree => { unlinkSync(join(tree, 'link')) }, 'link is missing'],
  ['a file too much', tree => { writeFileSync(join(tree, 'a', 'three'), '') }, 'a/three was not there'],
  ['a last entry too much', tree => { writeFileSync(join(tree, 'z'), '') }, 'z was not there'],
  ['a file that is longer', tree => { writeFileSync(join(tree, 'a', 'two'), 'longer') }, 'a/two is a file of 6 bytes, and was a file of 3 bytes'],
  ['a file that is executable', tree => { chmodSync(join(tree, 'a', 'two'), 0o755) }, 'a/two is an executable file of 3 bytes, and was a file of 3 bytes'],
  ['a symlink that points elsewhere', tree => { unlinkSync(join(tree, 'link')); symlinkSync('a', join(tree, 'link')) }, 'link points elsewhere'],
  ['a tree that is another thing', tree => { renameSync(join(tree, 'disk'), `${tree}-disk`); rmSync(tree, { recursive: true }); renameSync(`${tree}-disk`, tree) }, 'its root is a file of 2000000 bytes, and was a directory'],
])('tells of %s', async (_, change, expected) => {
  const tree = await plant()
  const proven: Manifest = await chunkTree(tree)
  await change(tree)
  const difference = describeDifference(proven, await chunkTree(tree))
  if (expected instanceof RegExp) expect(difference).toMatch(expected)
  else expect(difference).toBe(expected)
})

it('has nothing to say of chunks that are not listed', async () => {
  const tree = await plant()
  const { listing } = await chunkTree(tree)
  await flip(join(tree, 'disk'), 0)
  expect(describeDifference({ listing, chunks: ChunkList.none() }, await chunkTree(tree))).toBeUndefined()
})
