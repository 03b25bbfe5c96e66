import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { startFleet, TestDaemon, temporaryDirectory } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

async function importDisk(host: TestDaemon, size: number): Promise<ImageJson> {
  const source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, size)
  return host.json<ImageJson>('import', source)
}

async function evidenceOf(host: TestDaemon, { narHash }: ImageJson) {
  const { journal } = await host.json<ImageDetailsJson>('show', narHash)
  return journal.findLast(({ to }) => to === 'verified')?.evidence
}

describe('a swarm', () => {
  it('of three hosts that start together takes from the seed little more than once what it has', async () => {
    const [seed, first, second] = await startFleet(3)
    const third = await TestDaemon.start({ bootstrap: [seed] })
    await third.untilPeers(3)
    const image = await importDisk(seed, 48 * MIB)
    const hosts = [first, second, third]
    const fetched = await Promise.all(hosts.map(host => host.json<ImageJson>('fetch', image.narHash)))
    expect(fetched.map(({ state }) => state)).toEqual(['verified', 'verified', 'verified'])

    let fromSeed = 0
    for (const host of hosts) {
      const { peers = [], sources } = await evidenceOf(host, image) ?? {}
      const bytes = peers.reduce((sum, peer) => sum + peer.bytes, 0)
      expect(bytes + (sources?.zeros ?? 0)).toBe(image.narSize)
      for (const peer of peers) expect(peer).toMatchObject({ outcome: 'used' })
      fromSeed += peers.find(({ peerId }) => peerId === seed.peerId)?.bytes ?? 0
    }
    expect(fromSeed).toBeLessThan(2.5 * (image.narSize ?? 0))
  })
})
