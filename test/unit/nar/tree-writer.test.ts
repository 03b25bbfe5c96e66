import { chmodSync, lstatSync, mkdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ListingBuilder } from '../../../src/image/listing.ts'
import { collect, harvest, plant, withTemporaryDirectory } from '../../helpers/trees.ts'
import { directory, narBytes, regular, symlink } from '../../helpers/nar-bytes.ts'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { readRange } from '../../../src/nar/read-range.ts'
import { sealTree } from '../../../src/nar/seal.ts'
import { TreeWriter } from '../../../src/nar/tree-writer.ts'

const TREE = directory({ a: regular('aaaa'), b: regular('bb', true), c: directory({ d: symlink('../a'), e: regular('') }), f: regular(Buffer.alloc(100_000, 7)) })

async function layoutOf(path: string): Promise<Layout> {
  return Layout.of(await scanTree(path))
}

/** A tree on disk, its layout and its NAR. */
async function withTree(check: (given: { source: string, root: string, layout: Layout, nar: Buffer }) => Promise<void>): Promise<void> {
  await withTemporaryDirectory(async scratch => {
    const source = join(scratch, 'source')
    plant(source, TREE)
    await check({ source, root: join(scratch, 'root'), layout: await layoutOf(source), nar: narBytes(TREE) })
  })
}

describe('TreeWriter', () => {
  it('takes up what a killed process left, and keeps what it wrote', async () => {
    await withTree(async ({ root, layout, nar }) => {
      const half = Math.floor(nar.length / 2)
      const first = await TreeWriter.open(root, layout)
      await first.write(0, nar.subarray(0, half))
      await first.sync()
      await first.close()
      const second = await TreeWriter.open(root, layout)
      await second.write(half, nar.subarray(half))
      await second.close()
      expect(harvest(root)).toEqual(TREE)
    })
  })

  it('takes up a sealed tree, as for a repair', async () => {
    await withTree(async ({ source, layout, nar }) => {
      await sealTree(source)
      const writer = await TreeWriter.open(source, layout)
      await writer.write(0, nar)
      await writer.close()
      expect(harvest(source)).toEqual(TREE)
    })
  })

  it('puts right whatever else it finds, and writes through no symlink', async () => {
    await withTree(async ({ source, root, layout, nar }) => {
      mkdirSync(root)
      symlinkSync(join(source, 'a'), join(root, 'a'))
      mkdirSync(join(root, 'b'))
      writeFileSync(join(root, 'b', 'stranger'), '')
      symlinkSync(source, join(root, 'c'))
      writeFileSync(join(root, 'f'), 'longer'.repeat(50_000))
      chmodSync(join(root, 'f'), 0o777)
      writeFileSync(join(root, 'stranger'), '')
      const writer = await TreeWriter.open(root, layout)
      await writer.write(0, nar)
      await writer.close()
      expect(harvest(root)).toEqual(TREE)
      expect(harvest(source)).toEqual(TREE)
    })
  })

  it('refuses framing that differs, with the offset of the first byte that does', async () => {
    await withTree(async ({ root, layout, nar }) => {
      const writer = await TreeWriter.open(root, layout)
      const at = nar.indexOf('executable')
      const wrong = Buffer.from(nar)
      wrong[at + 3] = 0x58
      await expect(writer.write(0, wrong)).rejects.toMatchObject({ code: 'invalid-nar', message: expect.stringContaining(`at byte ${at + 3},`) as string })
      await expect(writer.write(at, wrong.subarray(at, at + 10))).rejects.toMatchObject({ code: 'invalid-nar', message: expect.stringContaining(`at byte ${at + 3},`) as string })
      await expect(writer.write(nar.length - 1, Buffer.alloc(2))).rejects.toMatchObject({ code: 'invalid-argument' })
      await writer.write(0, nar)
      await writer.close()
      expect(harvest(root)).toEqual(TREE)
    })
  })

  it('writes no more once it is closed or its signal is aborted', async () => {
    await withTree(async ({ root, layout, nar }) => {
      const controller = new AbortController()
      const writer = await TreeWriter.open(root, layout, { signal: controller.signal })
      controller.abort(new Error('enough'))
      await expect(writer.write(0, nar)).rejects.toThrow('enough')
      await writer.close()
      await expect(writer.write(0, nar)).rejects.toMatchObject({ code: 'internal' })
      await expect(TreeWriter.open(root, layout, { signal: controller.signal })).rejects.toThrow('enough')
    })
  })

  it('leaves room for zeros unused, and files over 4 GiB where they belong', async () => {
    await withTemporaryDirectory(async scratch => {
      const size = 5 * 1024 ** 3 + 5
      const builder = new ListingBuilder()
      builder.directory(Buffer.alloc(0))
      builder.regular(Buffer.from('big'), size, false)
      builder.regular(Buffer.from('small'), 5, true)
      builder.leave()
      const layout = Layout.of(builder.build())
      const start = layout.contentsOffset(1)
      const writer = await TreeWriter.open(join(scratch, 'root'), layout)
      const part = Buffer.concat([Buffer.from('here'), Buffer.alloc(200_000), Buffer.from('there')])
      await writer.write(start + 2 ** 32 - 2, part)
      await writer.write(start, Buffer.alloc(1 << 20))
      await writer.close()
      const stat = statSync(join(scratch, 'root', 'big'))
      expect(stat.size).toBe(size)
      expect(stat.blocks * 512).toBeLessThan(64 * 1024)
      const read = (offset: number, length: number): Promise<Buffer> => collect(readRange(join(scratch, 'root'), layout, offset, length))
      expect(await read(start + 2 ** 32 - 2, part.length)).toEqual(part)
      expect((await read(start - 8, 8)).readBigUInt64LE()).toBe(BigInt(size))
      expect((await read(start + size, 3))).toEqual(Buffer.alloc(3))
      expect((await read(start + size + 3, 16)).readBigUInt64LE()).toBe(1n)
      expect(await layoutOf(join(scratch, 'root'))).toMatchObject({ narSize: layout.narSize })
    })
  })
})

describe('a sealed tree', () => {
  it('has the modes and times of a Nix store', async () => {
    await withTree(async ({ source }) => {
      await sealTree(source)
      const modes = Object.fromEntries(['.', 'a', 'b', 'c', 'c/d', 'c/e', 'f'].map(name => {
        const stat = lstatSync(join(source, name))
        expect(stat.mtimeMs).toBe(1000)
        return [name, (stat.mode & 0o7777).toString(8)]
      }))
      expect(modes).toEqual({ '.': '755', 'a': '444', 'b': '555', 'c': '555', 'c/d': '777', 'c/e': '444', 'f': '444' })
      expect(readlinkSync(join(source, 'c/d'))).toBe('../a')
      expect(harvest(source)).toEqual(TREE)
    })
  })

  it('does not reach beyond a symlink', async () => {
    await withTemporaryDirectory(async scratch => {
      writeFileSync(join(scratch, 'outside'), 'x', { mode: 0o644 })
      plant(join(scratch, 'tree'), directory({ link: symlink('../outside'), up: symlink('..') }))
      await sealTree(join(scratch, 'tree'))
      expect((lstatSync(join(scratch, 'outside')).mode & 0o777).toString(8)).toBe('644')
      expect(readFileSync(join(scratch, 'outside'), 'utf8')).toBe('x')
    })
  })
})
