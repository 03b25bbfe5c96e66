import { link, mkdir, open, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { diskBytesOf, measureTree } from '../../../src/nar/disk-usage.ts'
import { scanTree } from '../../../src/nar/hash-tree.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const MIB = 1024 * 1024

describe('what a tree takes on disk', () => {
  it('counts blocks, not holes, and a file with two names once', async () => {
    const dir = await temporaryDirectory()
    const disk = await open(join(dir, 'disk'), 'w')
    await disk.write(Buffer.alloc(MIB, 1), 0, MIB, 64 * MIB)
    await disk.sync()
    await disk.close()
    await link(join(dir, 'disk'), join(dir, 'same'))
    await symlink('disk', join(dir, 'link'))
    const { apparentBytes, diskBytes } = await measureTree(dir)
    expect(apparentBytes).toBe(65 * MIB + 'disk'.length)
    expect(diskBytes).toBeGreaterThanOrEqual(MIB)
    expect(diskBytes).toBeLessThan(2 * MIB)
  })

  it('is nothing where there is nothing', async () => {
    expect(await measureTree(join(await temporaryDirectory(), 'absent'))).toEqual({ apparentBytes: 0, diskBytes: 0 })
  })

  it('is at most what the listing declares', async () => {
    const dir = await temporaryDirectory()
    await mkdir(join(dir, 'tree', 'sub'), { recursive: true })
    await symlink('x'.repeat(200), join(dir, 'tree', 'long-link'))
    for (const size of [0, 1, 4096, 5000, 3 * MIB]) await writeFile(join(dir, 'tree', 'sub', `f${size}`), Buffer.alloc(size, 7), { flush: true })
    const declared = diskBytesOf(await scanTree(join(dir, 'tree')))
    expect(declared).toBe(3 * 4096 + 4096 + 4096 + 8192 + 3 * MIB)
    expect((await measureTree(join(dir, 'tree'))).diskBytes).toBeLessThanOrEqual(declared)
  })
})
