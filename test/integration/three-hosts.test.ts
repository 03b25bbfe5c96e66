import { lstat, mkdir, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { ImageJson, StatusJson } from '../../src/control/api.ts'
import { startFleet, temporaryDirectory, type TestDaemon } from '../helpers/fleet.ts'
import { nixHashPath } from '../helpers/real-nix.ts'
import { makeManyFiles, makeOddTree, makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024
/** Milliseconds for a gibibyte, or 60,000 files that are each made durable, on a machine with a lot else to do. */
const PATIENCE_MS = 600_000

describe('an image moves from one host to the others', () => {
  let a: TestDaemon, b: TestDaemon, c: TestDaemon
  beforeAll(async () => { [a, b, c] = await startFleet(3) })

  const sources: [string, string, (path: string) => Promise<unknown>][] = [
    ['odd', 'a tree with odd names, modes and links', makeOddTree],
    ['disk', 'a raw disk of 1 GiB', path => makeRawDisk(path, 1024 * MIB)],
    ['many', 'a tree of 20,000 files', path => makeManyFiles(path, 20_000)],
    ['empty-file', 'an empty file', path => writeFile(path, '')],
    ['empty-directory', 'an empty directory', path => mkdir(path)],
    ['symlink', 'a lone symlink', path => symlink('/nowhere/at all', path)],
  ]

  it.each(sources)('(%s) %s arrives as the real Nix knows it', async (name, _what, make) => {
    const dir = await temporaryDirectory()
    const source = join(dir, 'source')
    await make(source)
    const narHash = await nixHashPath(source)
    const imported = await a.json<ImageJson>('import', source, '--name', name)
    expect(imported).toMatchObject({ state: 'verified', source: 'import', name, narHash })
    await rm(source, { recursive: true })

    await Promise.all([b, c].map(async host => {
      const fetched = await host.json<ImageJson>('fetch', narHash, '--name', name)
      expect(fetched).toMatchObject({ state: 'verified', source: 'fetch', narHash, narSize: imported.narSize })
      expect(await readlink(join(host.dataDir, 'by-name', name))).toContain(fetched.path?.split('/').at(-1))
    }))
    const dest = join(dir, 'exported')
    expect(await c.json('export', name, dest)).toEqual({ path: dest })
    expect(await nixHashPath(dest)).toBe(narHash)
    for (const host of [a, b, c]) await host.json('rm', name)
  }, PATIENCE_MS)

  it('and leaves as `nix-store --restore` would leave it, for everybody to read', async () => {
    const dir = await temporaryDirectory()
    await mkdir(join(dir, 'source', 'sub'), { recursive: true })
    await writeFile(join(dir, 'source', 'sub', 'file'), 'x')
    await writeFile(join(dir, 'source', 'run'), 'x', { mode: 0o755 })
    await a.json('import', join(dir, 'source'), '--name', 'modes')
    await a.json('export', 'modes', join(dir, 'out'))
    const modeOf = async (path: string): Promise<string> => ((await lstat(join(dir, 'out', path))).mode & 0o7777).toString(8)
    expect(await Promise.all(['.', 'sub', 'sub/file', 'run'].map(modeOf))).toEqual(['755', '755', '644', '755'])
    await a.json('rm', 'modes')
  })

  it('until no host has it, and nothing of it is left', async () => {
    for (const host of [a, b, c]) {
      expect(await host.json('list')).toEqual([])
      for (const folder of ['images', 'quarantine', 'by-name']) expect(await readdir(join(host.dataDir, folder))).toEqual([])
      expect((await host.json<StatusJson>('status')).images).toEqual({ wanted: 0, receiving: 0, quarantined: 0, verified: 0, rejected: 0 })
    }
  })

  it('from whoever has it, also when the first host is gone', async () => {
    const source = join(await temporaryDirectory(), 'source')
    await makeOddTree(source)
    const { narHash } = await a.json<ImageJson>('import', source)
    await b.json('fetch', narHash)
    await a.kill('SIGKILL')
    expect(await c.json<ImageJson>('fetch', narHash)).toMatchObject({ state: 'verified' })
  })
})
