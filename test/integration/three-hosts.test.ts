import { mkdir, readlink, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageJson, StatusJson } from '../../src/control/api.ts'
import { startFleet, temporaryDirectory } from '../helpers/fleet.ts'
import { nixHashPath } from '../helpers/real-nix.ts'
import { makeManyFiles, makeOddTree, makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

describe('an image moves from one host to the others', () => {
  const sources: [string, (path: string) => Promise<void>][] = [
    ['a tree with odd names, modes and links', async path => { await makeOddTree(path) }],
    ['a raw disk of 1 GiB', path => makeRawDisk(path, 1024 * MIB)],
    ['a tree of 20,000 files', path => makeManyFiles(path, 20_000)],
    ['an empty file', path => writeFile(path, '')],
    ['an empty directory', async path => { await mkdir(path) }],
    ['a lone symlink', path => symlink('/nowhere/at all', path)],
  ]

  it.each(sources)('%s arrives as the real Nix knows it', async (_what, make) => {
    const dir = await temporaryDirectory()
    const source = join(dir, 'source')
    await make(source)
    const [a, b, c] = await startFleet(3)
    if (a === undefined || b === undefined || c === undefined) throw new Error('no fleet')

    const imported = await a.json<ImageJson>('import', source, '--name', 'it')
    expect(imported).toMatchObject({ state: 'verified', source: 'import', name: 'it', narHash: await nixHashPath(source) })

    for (const host of [b, c]) {
      const fetched = await host.json<ImageJson>('fetch', imported.narHash, '--name', 'it')
      expect(fetched).toMatchObject({ state: 'verified', source: 'fetch', narHash: imported.narHash, narSize: imported.narSize })
      const dest = join(dir, `from-${host.peerId}`)
      expect(await host.json('export', imported.narHash, dest)).toEqual({ path: dest })
      expect(await nixHashPath(dest)).toBe(imported.narHash)
      expect(await readlink(join(host.dataDir, 'by-name', 'it'))).toContain(fetched.path?.split('/').at(-1))
    }
    expect((await c.json<StatusJson>('status')).images).toMatchObject({ verified: 1, rejected: 0 })
  })

  it('is fetched from whoever has it, also when the first host is gone', async () => {
    const dir = await temporaryDirectory()
    const source = join(dir, 'source')
    await makeOddTree(source)
    const [a, b, c] = await startFleet(3)
    if (a === undefined || b === undefined || c === undefined) throw new Error('no fleet')
    const { narHash } = await a.json<ImageJson>('import', source)
    await b.json('fetch', narHash)
    await a.kill('SIGKILL')
    expect(await c.json<ImageJson>('fetch', narHash)).toMatchObject({ state: 'verified' })
  })
})
