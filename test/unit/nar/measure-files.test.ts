import { chmodSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Listing } from '../../../src/image/listing.ts'
import { measureFiles } from '../../../src/nar/thread/measure-files.ts'
import { walkNames, walkTree } from '../../../src/nar/thread/walk.ts'
import { directory, type Entry, regular, symlink } from '../../helpers/nar-bytes.ts'
import { plant, withTemporaryDirectory } from '../../helpers/trees.ts'

// Real by default; a test makes it a file system that doesn't tell the kinds of its entries.
vi.mock('node:fs', async importOriginal => {
  const real = await importOriginal<typeof import('node:fs')>()
  return { ...real, readdirSync: vi.fn(real.readdirSync) }
})

const noCheck = (): void => undefined

afterEach(() => { vi.mocked(readdirSync).mockClear() })

function named(name: string, tree: Entry['tree']): Entry {
  return { name: Buffer.from(name, 'latin1'), tree }
}

/** Files, two of which a second thread is worth its while for where they are many, with a name that is no UTF-8. */
function treeOf(files: number): ReturnType<typeof directory> {
  return directory([
    ...Array.from({ length: files }, (_, index) => named(`a${String(index).padStart(5, '0')}`, regular('x'.repeat(index % 100), index % 3 === 0))),
    named('link', symlink('nowhere')),
    named('sub\xff', directory([named('\xe9t\xe9', regular('summer', true))])),
  ])
}

async function measured(path: string): Promise<Listing> {
  const listing = walkNames(path, noCheck)
  await measureFiles(path, listing, noCheck)
  return listing
}

describe('the names first and the sizes after', () => {
  it.each([0, 10, 3000])('make the same listing of %i files as one walk', async files => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'tree')
      plant(path, treeOf(files))
      expect((await measured(path)).columns).toEqual(walkTree(path, noCheck).columns)
    })
  })

  it('make a listing of a single file', async () => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'file')
      plant(path, regular('contents', true))
      expect((await measured(path)).columns).toEqual(walkTree(path, noCheck).columns)
    })
  })

  it.each([['the first', 0], ['one in the middle', 1700], ['the last', 2999]])('notice where %s of many files is something else by then, or gone', async (_, victim) => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'tree')
      plant(path, treeOf(3000))
      const listing = walkNames(path, noCheck)
      const file = join(path, `a${String(victim).padStart(5, '0')}`)
      rmSync(file)
      await expect(measureFiles(path, listing, noCheck)).rejects.toMatchObject({ code: 'changed-while-reading', message: expect.stringContaining(`${file}: found it gone`) as string })
      mkdirSync(file)
      await expect(measureFiles(path, listing, noCheck)).rejects.toMatchObject({ code: 'changed-while-reading', message: expect.stringContaining(`${file}: found something else in place of a file`) as string })
    })
  })

  it('end when they are told to', async () => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'tree'), treeOf(3000))
      const listing = walkNames(join(scratch, 'tree'), noCheck)
      await expect(measureFiles(join(scratch, 'tree'), listing, () => { throw new Error('enough') })).rejects.toThrow('enough')
    })
  })
})

describe('one walk', () => {
  it('notices where a file is something else between its name and its size', async () => {
    await withTemporaryDirectory(scratch => {
      const path = join(scratch, 'tree')
      plant(path, directory({ file: regular('x') }))
      let visited = 0
      const swap = (): void => {
        if (++visited !== 2) return
        rmSync(join(path, 'file'))
        mkdirSync(join(path, 'file'))
      }
      expect(() => walkTree(path, swap)).toThrow(`${path}/file: found something else in place of a file`)
      return Promise.resolve()
    })
  })
})

describe('a file system that tells no kinds', () => {
  it('is asked for each entry, also by a name that is not ASCII', async () => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'tree')
      plant(path, treeOf(10))
      chmodSync(join(path, 'a00003'), 0o755)
      const expected = walkTree(path, noCheck).columns
      const { readdirSync: real } = await vi.importActual<typeof import('node:fs')>('node:fs')
      vi.mocked(readdirSync).mockImplementation(((directory: string, options: { withFileTypes?: boolean }) => {
        if (options.withFileTypes === true) throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
        return real(directory, options as { encoding: 'latin1' })
      }) as typeof readdirSync)
      expect(walkTree(path, noCheck).columns).toEqual(expected)
      expect((await measured(path)).columns).toEqual(expected)
    })
  })
})
