import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Layout } from '../../../src/nar/layout.ts'
import { chunkTree } from '../../../src/nar/hash-tree.ts'
import { findDamage } from '../../../src/tasks/find-damage.ts'
import { regular } from '../../helpers/nar-bytes.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { plant } from '../../helpers/trees.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

const MIB = 1024 * 1024
const DISK = Buffer.concat([randomOf(1, MIB), Buffer.alloc(4 * MIB), randomOf(2, MIB)])

describe('the damage of a tree', () => {
  it.each<[string, number, Buffer]>([
    ['a byte', 300_000, Buffer.from([DISK[300_000] === 7 ? 8 : 7])],
    ['bytes among zeros, behind which every chunk is cut at another place', 2 * MIB, randomOf(3, 300_000)],
    ['zeros in place of bytes', 500_000, Buffer.alloc(100_000)],
    ['nothing', 0, Buffer.alloc(0)],
  ])('is the chunks that hold it: %s', async (_, position, bytes) => {
    const tree = join(await temporaryDirectory(), 'disk')
    plant(tree, regular(DISK))
    const { listing, chunks } = await chunkTree(tree)
    const layout = Layout.of(listing)
    const handle = await open(tree, 'r+')
    await handle.write(bytes, 0, bytes.length, position)
    await handle.close()
    const start = layout.contentsOffset(0) + position
    const expected = Array.from({ length: bytes.length === 0 ? 0 : chunks.count }, (__, chunk) => chunk).filter(chunk => chunks.offset(chunk + 1) > start && chunks.offset(chunk) < start + bytes.length)
    const damaged = await findDamage(tree, { layout, chunks }, { signal: new AbortController().signal })
    expect([...damaged.from(0)]).toEqual(expected)
  })
})
