import { chmodSync, existsSync, lstatSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { sealTree } from '../../../src/nar/seal.ts'
import { makeSkeleton } from '../../../src/nar/thread/skeleton.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'
import { directory, narBytes, regular } from '../../helpers/nar-bytes.ts'
import { plant, withTemporaryDirectory } from '../../helpers/trees.ts'

const TREE = directory({ a: regular('aaaa'), run: regular('bb', true), sub: directory({ c: regular('c'.repeat(5000)) }) })
const SECRET = 'not to be touched, and longer than what is received'

/** A tree to be received, and a file outside of it that nobody may write. */
async function withVictim(check: (given: { root: string, layout: Layout, nar: Buffer, victim: string }) => Promise<void> | void): Promise<void> {
  await withTemporaryDirectory(async scratch => {
    const [source, victim] = [join(scratch, 'source'), join(scratch, 'victim')]
    plant(source, TREE)
    writeFileSync(victim, SECRET)
    await check({ root: join(scratch, 'root'), layout: Layout.of(await scanTree(source)), nar: narBytes(TREE), victim })
    expect(readFileSync(victim, 'utf8')).toBe(SECRET)
  })
}

describe('a symlink that somebody puts into a tree while it is received', () => {
  // Guard: O_NOFOLLOW where received bytes are written.
  it.each(['a', join('sub', 'c')])('in place of the file %s is not written through', async name => {
    await withVictim(async ({ root, layout, nar, victim }) => {
      const writer = await TreeWriter.open(root, layout)
      rmSync(join(root, name))
      symlinkSync(victim, join(root, name))
      await expect(writer.write(0, nar).then(() => writer.sync())).rejects.toThrow()
      await writer.close().catch(() => undefined)
    })
  })

  // Guard: O_NOFOLLOW where the files are made, right after it was seen that there is nothing.
  it('right before a file is made is not followed, neither to a file nor to nothing', async () => {
    await withVictim(({ root, layout, victim }) => {
      for (const target of [victim, join(victim, '..', 'made')]) {
        rmSync(root, { recursive: true, force: true })
        const plantOne = (): void => { if (existsSync(root) && lstatSync(join(root, 'a'), { throwIfNoEntry: false }) === undefined) symlinkSync(target, join(root, 'a')) }
        expect(() => makeSkeleton(root, layout.listing, plantOne)).toThrow()
        expect(existsSync(join(victim, '..', 'made'))).toBe(false)
      }
    })
  })
})

// Guard: seal gives every entry a mode of its own making, whatever it had.
it('a file that was made set-uid, or a directory that others may write, is neither once it is sealed', async () => {
  await withVictim(async ({ root, layout, nar }) => {
    const writer = await TreeWriter.open(root, layout)
    await writer.write(0, nar)
    await writer.close()
    for (const [name, mode] of [['a', 0o6666], ['run', 0o6777], ['sub', 0o7777], [join('sub', 'c'), 0o4600]] as const) chmodSync(join(root, name), mode)
    await sealTree(root)
    const modes = ['a', 'run', 'sub', join('sub', 'c')].map(name => lstatSync(join(root, name)).mode & 0o7777)
    expect(modes).toEqual([0o444, 0o555, 0o555, 0o444])
  })
})
