import { readdirSync, utimesSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { startFleet, temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { nixHashPath } from '../helpers/real-nix.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024
const SIZE = 512 * MIB

/** The same disk for every test. */
let source = ''
beforeAll(async () => {
  source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, SIZE)
})

function importDisk(host: TestDaemon): Promise<ImageJson> {
  return host.json<ImageJson>('import', source)
}

/** Starts a fetch and resolves as soon as `bytes` have arrived; the fetch goes on. */
async function fetchUntil(host: TestDaemon, narHash: string, bytes: number, name?: string): Promise<{ result: Promise<ImageJson> }> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>()
  const result = host.client.fetch({ ref: narHash, ...(name !== undefined && { name }) }, { onProgress: progress => { if (progress.phase === 'receiving' && progress.bytes >= bytes) resolve(undefined) } })
  result.then(() => { resolve(undefined) }, reject)
  await promise
  // Whoever cares awaits the result; a daemon that is killed ends it with an error.
  result.catch(() => undefined)
  return { result }
}

/** The bytes that were here each time that it was taken up, in order. */
function startOffsets({ journal }: ImageDetailsJson): number[] {
  return journal.flatMap(({ event, reason }) => event === 'start' ? [Number(/from byte (\d+) on/.exec(reason)?.[1])] : [])
}

describe('an image that is not proven yet', () => {
  it('has no path anywhere, no file in sight, and is neither announced nor served', async () => {
    const [a, b, c] = await startFleet(3, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
    const { narHash } = await importDisk(a)
    await fetchUntil(b, narHash, 16 * MIB, 'it')
    await a.kill('SIGKILL')
    const shown = await b.json<ImageDetailsJson>('show', narHash)
    expect(['wanted', 'receiving']).toContain(shown.state)
    expect(shown.path).toBeNull()
    expect(JSON.stringify(await b.json('list'))).not.toContain(b.dataDir)
    for (const args of [['list'], ['show', 'it'], ['show', 'it', '--json'], ['transfers', '--json']]) expect((await b.run(...args)).stdout).not.toContain(b.dataDir)
    expect(await readdir(join(b.dataDir, 'images'))).toEqual([])
    expect(await readdir(join(b.dataDir, 'by-name'))).toEqual([])
    expect((await b.run('export', narHash, join(b.dir, 'out'), '--json')).exitCode).toBe(1)
    expect((await c.run('fetch', narHash, '--json')).exitCode).toBe(4)
  })
})

describe('an image that waits for its verdict', () => {
  it('is as far out of reach, and whoever asks for it finds nobody', async () => {
    const [a, b] = await startFleet(2)
    const { narHash } = await importDisk(a)
    const looks: Promise<ImageDetailsJson>[] = []
    const inSight: string[][] = []
    const tree = join(b.dataDir, 'quarantine', NarHash.parse(narHash).toNix32(), 'tree')
    const look = ({ phase, bytes }: { phase: string, bytes: number }): void => {
      // Somebody else touches the file: so it is read again as a whole, which takes a while.
      if (phase === 'receiving' && bytes > 0) touch(tree)
      if (phase !== 'verifying') return
      inSight.push([...readdirSync(join(b.dataDir, 'by-name')), ...readdirSync(join(b.dataDir, 'images'))])
      looks.push(b.client.show(narHash))
    }
    await b.client.fetch({ ref: narHash, name: 'it' }, { onProgress: look })
    const shown = await Promise.all(looks)
    expect(shown.map(({ state }) => state)).toContain('quarantined')
    for (const { state, path } of shown) if (state !== 'verified') expect(path).toBeNull()
    expect(inSight[0]).toEqual([])
  })
})

function touch(path: string): void {
  try {
    utimesSync(path, 2, 2)
  } catch {
    // It is published already.
  }
}

describe('a provider that is killed in the middle', () => {
  it('is followed by another one, and nothing is taken twice', async () => {
    const [a, b, c] = await startFleet(3)
    const { narHash, narSize } = await importDisk(a)
    await b.json('fetch', narHash)
    const { result } = await fetchUntil(c, narHash, 64 * MIB)
    const transfer = (await c.client.transfers())[0]
    const sender = [a, b].find(host => host.peerId === transfer?.peers.at(-1)?.peerId) ?? a
    await sender.kill('SIGKILL')
    expect(await result).toMatchObject({ state: 'verified' })
    const { journal } = await c.json<ImageDetailsJson>('show', narHash)
    const { peers = [], sources } = journal.find(entry => entry.to === 'verified')?.evidence ?? {}
    // Every byte was taken once, from one of the two; zeros from nobody, and what recurs from this host.
    const { zeros = 0, reused = [] } = sources ?? {}
    expect([...peers, ...reused].reduce((sum, { bytes }) => sum + bytes, zeros)).toBe(narSize)
  })

  it('leaves an image that goes on by itself when it comes back', async () => {
    const [a, b] = await startFleet(2, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
    const { narHash } = await importDisk(a)
    const { result } = await fetchUntil(b, narHash, 128 * MIB)
    await a.kill('SIGKILL')
    await expect(result).rejects.toMatchObject({ code: 'no-provider' })
    const left = await b.json<ImageDetailsJson>('show', narHash)
    expect(left).toMatchObject({ state: 'wanted', path: null })
    expect(left.reason).toContain(a.peerId)

    await TestDaemon.start({ dir: a.dir, bootstrap: [b] })
    await until(async () => (await b.client.show(narHash)).state === 'verified', 'the fetch to go on')
    const offsets = startOffsets(await b.json<ImageDetailsJson>('show', narHash))
    expect(offsets[0]).toBe(0)
    expect(offsets.at(-1)).toBeGreaterThanOrEqual(64 * MIB)
  })
})

describe('a receiver that is killed in the middle', () => {
  it('again and again, ends verified, and never starts over', async () => {
    const a = await TestDaemon.start()
    let b = await TestDaemon.start({ bootstrap: [a] })
    await b.untilPeers(1)
    const image = await importDisk(a)
    for (const percent of [10, 25, 40, 55, 70]) {
      await fetchUntil(b, image.narHash, (image.narSize ?? 0) * percent / 100)
      await b.kill('SIGKILL')
      expect(await readdir(join(b.dataDir, 'images'))).toEqual([])
      b = await TestDaemon.start({ dir: b.dir, bootstrap: [a] })
      await b.untilPeers(1)
    }
    expect(await b.client.fetch({ ref: image.narHash })).toMatchObject({ state: 'verified' })
    const dest = join(b.dir, 'out')
    await b.json('export', image.narHash, dest)
    expect(await nixHashPath(dest)).toBe(image.narHash)
    const offsets = startOffsets(await b.json<ImageDetailsJson>('show', image.narHash))
    expect(offsets).toHaveLength(6)
    expect(offsets).toEqual(offsets.toSorted((x, y) => x - y))
    expect(offsets.at(-1)).toBeGreaterThanOrEqual(256 * MIB)
  })

  it('and by a stop, goes on after the start', async () => {
    const a = await TestDaemon.start()
    const b = await TestDaemon.start({ bootstrap: [a] })
    await b.untilPeers(1)
    const { narHash } = await importDisk(a)
    const { result } = await fetchUntil(b, narHash, 32 * MIB)
    const ended = expect(result).rejects.toMatchObject({ code: 'interrupted' })
    expect(await b.stop()).toBe(0)
    await ended
    const again = await TestDaemon.start({ dir: b.dir, bootstrap: [a] })
    await until(async () => (await again.client.show(narHash)).state === 'verified', 'the fetch to go on')
    // A stop saves what has arrived: not a byte is asked for twice.
    expect(startOffsets(await again.json<ImageDetailsJson>('show', narHash)).at(-1)).toBeGreaterThanOrEqual(32 * MIB)
  })
})
