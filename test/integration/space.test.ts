import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { CollectionJson, ImageJson, UsageJson } from '../../src/control/api.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'

const MIB = 1024 * 1024
const MIN_COPIES = 2

/** Hosts that know each other through the first one, all connected. */
async function startHosts(count: number, env: Record<string, string>): Promise<TestDaemon[]> {
  const first = await TestDaemon.start({ env })
  const others = await Promise.all(Array.from({ length: count - 1 }, () => TestDaemon.start({ env, bootstrap: [first] })))
  const hosts = [first, ...others]
  await Promise.all(hosts.map(host => host.untilPeers(count - 1)))
  return hosts
}

async function importRandom(host: TestDaemon, bytes: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'image')
  await writeFile(path, randomBytes(bytes))
  return (await host.client.import({ path })).narHash
}

async function holdersOf(hosts: readonly TestDaemon[], narHash: string): Promise<number> {
  const lists = await Promise.all(hosts.map(host => host.client.list()))
  return lists.filter(images => images.some(image => image.narHash === narHash && image.state === 'verified')).length
}

describe('hosts that collect at the same moment', () => {
  let hosts: TestDaemon[]
  beforeAll(async () => { hosts = await startHosts(4, { NARVIK_SPACE_MIN_COPIES: String(MIN_COPIES) }) })

  it('leave the copies that the fleet needs, and no more', async () => {
    const [first] = hosts as [TestDaemon]
    const images = await Promise.all([1, 2, 3].map(() => importRandom(first, 100_000)))
    await Promise.all(hosts.slice(1).flatMap(host => images.map(ref => host.client.fetch({ ref }))))
    let kept: CollectionJson['kept'] = []
    await until(async () => {
      kept = (await Promise.all(hosts.map(host => host.client.gc({})))).flatMap(collection => collection.kept)
      const copies = await Promise.all(images.map(narHash => holdersOf(hosts, narHash)))
      for (const count of copies) expect(count).toBeGreaterThanOrEqual(MIN_COPIES)
      return copies.every(count => count === MIN_COPIES)
    }, `${MIN_COPIES} copies of each image`)
    expect(new Set(kept.map(({ reason }) => reason.split(':')[0]))).toEqual(new Set(['the fleet needs this copy']))
    // What is left is found, by hosts that gave theirs up as well.
    await Promise.all(hosts.flatMap(host => images.map(async ref => { expect(await host.client.fetch({ ref })).toMatchObject({ state: 'verified' }) })))
  })
})

describe('a host with a quota', () => {
  it('makes room for what it fetches, keeps what is pinned, and says what takes how much', async () => {
    const [source, host] = await startHosts(2, { NARVIK_SPACE_MIN_COPIES: '0', NARVIK_SPACE_QUOTA: '10 MiB' }) as [TestDaemon, TestDaemon]
    const refs: string[] = []
    for (let round = 0; round < 4; round++) {
      const ref = await importRandom(source, 3 * MIB)
      refs.push(ref)
      await host.client.fetch({ ref })
      if (round === 0) expect(await host.json<ImageJson>('pin', ref)).toMatchObject({ pinned: true })
      const { usedBytes, quotaBytes } = await host.json<UsageJson>('du')
      expect(usedBytes).toBeLessThanOrEqual(quotaBytes ?? 0)
    }
    const left = (await host.client.list()).map(({ narHash }) => narHash)
    expect(left).toEqual(expect.arrayContaining([refs[0], refs[3]]))
    expect(left).not.toContain(refs[1])

    const big = await importRandom(source, 9 * MIB)
    const { exitCode, stderr } = await host.run('fetch', big)
    expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^narvik: Cannot take [\d.]+ MiB more: found [\d.]+ [KM]iB too few under the quota of 10\.0 MiB/)])
    expect((await host.client.list()).map(({ narHash }) => narHash)).toContain(refs[0])
  })
})
