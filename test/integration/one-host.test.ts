import { readdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageJson, VerifyReportJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { startFleet, temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { makeOddTree, makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

/** Everything under a directory but what is in the trees of images. */
async function filesIn(dir: string): Promise<string[]> {
  const all = await readdir(dir, { recursive: true })
  return all.filter(path => !/^data\/(images|by-name)\/[^/]+\//s.test(path)).sort()
}

describe('a daemon', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('ends with 0 on %s, and leaves nothing but its data', async signal => {
    const host = await TestDaemon.start()
    const source = join(await temporaryDirectory(), 'tree')
    await makeOddTree(source)
    const { narHash } = await host.json<ImageJson>('import', source, '--name', 'it')
    expect(await host.kill(signal)).toBe(0)
    const nix32 = NarHash.parse(narHash).toNix32()
    const data = ['by-name', 'by-name/it', 'catalog.db', 'gcroots', 'identity.key', 'images', `images/${nix32}`, 'quarantine'].map(path => `data/${path}`)
    const left = (await filesIn(host.dir)).filter(path => !/^data\/(lock|catalog\.db-(wal|shm))/.test(path))
    expect(left.filter(path => path !== 'run')).toEqual(['data', ...data])
    const again = await TestDaemon.start({ dir: host.dir })
    expect(again.peerId).toBe(host.peerId)
    expect(await again.json<ImageJson>('show', 'it')).toMatchObject({ narHash, state: 'verified' })
  })
})

describe('an image that was removed', () => {
  it('is not found any more, and can be had again', async () => {
    const [a, b] = await startFleet(2)
    const source = join(await temporaryDirectory(), 'tree')
    await makeOddTree(source)
    const { narHash } = await a.json<ImageJson>('import', source)
    await b.json('fetch', narHash, '--name', 'it')
    await b.json('rm', 'it')
    for (const ref of ['it', narHash]) expect((await b.run('show', ref, '--json')).exitCode).toBe(4)
    expect(await b.json<ImageJson>('fetch', narHash)).toMatchObject({ state: 'verified', name: null })
    expect((await b.json<{ journal: { event: string }[] }>('show', narHash)).journal.map(({ event }) => event)).toContain('remove')
  })

  it('while it is fetched is gone at once, with everything that came', async () => {
    const [a, b] = await startFleet(2)
    const source = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(source, 512 * MIB)
    const { narHash } = await a.json<ImageJson>('import', source)
    const { promise: begun, resolve } = Promise.withResolvers<undefined>()
    const fetch = b.client.fetch({ ref: narHash, name: 'it' }, { onProgress: ({ phase, bytes }) => { if (phase === 'receiving' && bytes > 0) resolve(undefined) } })
    const ended = expect(fetch).rejects.toMatchObject({ code: 'interrupted' })
    await begun
    await b.json('rm', 'it')
    await ended
    expect(await b.json('list')).toEqual([])
    expect(await b.json('transfers')).toEqual([])
    for (const folder of ['images', 'quarantine', 'by-name']) expect(await readdir(join(b.dataDir, folder))).toEqual([])
    expect(await b.stop()).toBe(0)
  })
})

describe('an image that is found damaged', () => {
  it('is offered to nobody any more', async () => {
    const [a, b] = await startFleet(2, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
    const source = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(source, MIB)
    const { narHash } = await a.json<ImageJson>('import', source, '--name', 'it')
    await truncate(join(a.dataDir, 'images', NarHash.parse(narHash).toNix32()), 1000)
    const verified = await a.run('verify', 'it', '--json')
    expect(verified.exitCode).toBe(5)
    expect((JSON.parse(verified.stdout) as VerifyReportJson).results).toMatchObject([{ verdict: 'fail' }])
    expect(await a.json<ImageJson>('show', 'it')).toMatchObject({ state: 'rejected', path: null })
    expect(await readdir(join(a.dataDir, 'by-name'))).toEqual([])
    const { exitCode, stdout } = await b.run('fetch', narHash, '--json')
    expect(exitCode).toBe(4)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'no-provider' } })
  })

  it('while it is served is withdrawn, and judged again', async () => {
    const [a, b] = await startFleet(2, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
    const source = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(source, MIB)
    const { narHash } = await a.json<ImageJson>('import', source)
    await truncate(join(a.dataDir, 'images', NarHash.parse(narHash).toNix32()), 1000)
    expect((await b.run('fetch', narHash, '--json')).exitCode).toBe(4)
    await until(async () => (await a.client.show(narHash)).state === 'rejected', 'the image to be judged')
    expect(await b.json<ImageJson[]>('list')).not.toContainEqual(expect.objectContaining({ state: 'verified' }))
  })
})
