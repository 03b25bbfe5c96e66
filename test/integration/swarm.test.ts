import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson, TransferJson } from '../../src/control/api.ts'
import type { Evidence } from '../../src/image/verdict.ts'
import { startFleet, TestDaemon, temporaryDirectory, until } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'
import { startSwarmPeer, type SwarmPeer } from '../helpers/swarm-peer.ts'

const MIB = 1024 * 1024

async function someDisk(size: number): Promise<string> {
  const source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, size)
  return source
}

async function evidenceOf(host: TestDaemon, narHash: string): Promise<Evidence> {
  const { journal } = await host.json<ImageDetailsJson>('show', narHash)
  return journal.findLast(({ to }) => to === 'verified')?.evidence ?? {}
}

function bytesFrom({ peers = [] }: Evidence, peerId?: string): number {
  return peers.filter(peer => peerId === undefined || peer.peerId === peerId).reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Resolves when the host has so many bytes, and not all; an eighth of a disk is zeros, which nobody sends. */
async function untilReceived(host: TestDaemon, bytes: number): Promise<TransferJson> {
  let found: TransferJson | undefined
  await until(async () => {
    found = (await host.client.transfers()).find(({ phase }) => phase === 'receiving')
    return found !== undefined && found.bytes >= bytes
  }, `${bytes} bytes`)
  if (found === undefined) throw new Error('nothing is received')
  return found
}

/** What a host needs to reach others. */
function reachable(...peers: readonly Pick<SwarmPeer, 'addresses'>[]): { bootstrap: readonly Pick<TestDaemon, 'addresses'>[] } {
  return { bootstrap: peers }
}

describe('a swarm of real hosts', () => {
  it('that start together takes from the seed little more than once what it has', async () => {
    const [seed, first, second] = await startFleet(3)
    const third = await TestDaemon.start({ bootstrap: [seed] })
    await third.untilPeers(3)
    const { narHash, narSize } = await seed.json<ImageJson>('import', await someDisk(48 * MIB))
    const hosts = [first, second, third]
    const fetched = await Promise.all(hosts.map(host => host.json<ImageJson>('fetch', narHash)))
    expect(fetched.map(({ state }) => state)).toEqual(['verified', 'verified', 'verified'])
    const evidence = await Promise.all(hosts.map(host => evidenceOf(host, narHash)))
    for (const one of evidence) {
      expect(bytesFrom(one) + (one.sources?.zeros ?? 0) + (one.sources?.reused ?? []).reduce((sum, { bytes }) => sum + bytes, 0)).toBe(narSize)
    }
    expect(evidence.reduce((sum, one) => sum + bytesFrom(one, seed.peerId), 0)).toBeLessThan(2.5 * (narSize ?? 0))
  })

  it('bans the one of three that lies after its first chunk, and ends verified', async () => {
    const tree = await someDisk(12 * MIB)
    const liar = await startSwarmPeer({ tree, lies: true })
    const honest = [await startSwarmPeer({ tree, bootstrap: liar.addresses }), await startSwarmPeer({ tree, bootstrap: liar.addresses })] as const
    const host = await TestDaemon.start(reachable(liar, ...honest))
    await host.untilPeers(3)
    expect((await host.json<ImageJson>('fetch', liar.narHash)).state).toBe('verified')
    const { peers = [] } = await evidenceOf(host, liar.narHash)
    const share = peers.find(({ peerId }) => peerId === liar.peerId)
    expect(share).toMatchObject({ bytes: 0, outcome: 'lied' })
    expect(share?.wasted).toBeLessThanOrEqual(2 * 256 * 1024)
    const told = await host.run('explain', liar.narHash)
    expect(told.stdout).toMatch(new RegExp(`peer ${liar.peerId} .*lied`))
    expect(told.stdout).toMatch(/in vain in all/)
    expect((await host.client.peers()).find(({ peerId }) => peerId === liar.peerId)?.banned).toBe(true)
  })

  it('goes on after a kill with what was proven, from another peer', async () => {
    const tree = await someDisk(24 * MIB)
    const slow = await startSwarmPeer({ tree, bytesPerSecond: 4 * MIB })
    const host = await TestDaemon.start(reachable(slow))
    await host.untilPeers(1)
    const fetching = host.run('fetch', slow.narHash)
    await untilReceived(host, 8 * MIB)
    await host.kill('SIGKILL')
    await fetching
    await slow.kill()

    const other = await startSwarmPeer({ tree })
    const again = await TestDaemon.start({ dir: host.dir, ...reachable(other) })
    await until(async () => (await again.client.list()).some(({ state }) => state === 'verified'), 'the image to be verified')
    const evidence = await evidenceOf(again, slow.narHash)
    const narSize = (await again.client.list())[0]?.narSize ?? 0
    // What came before the kill is still there: nothing of it came again.
    expect(narSize - bytesFrom(evidence, other.peerId) - (evidence.sources?.zeros ?? 0)).toBeGreaterThanOrEqual(4 * MIB)
  })

  it('feeds a host that reaches only one that is still receiving', async () => {
    const tree = await someDisk(16 * MIB)
    const source = await startSwarmPeer({ tree, holdAfter: 8 * MIB })
    const middle = await TestDaemon.start(reachable(source))
    await middle.untilPeers(1)
    const config = join(await temporaryDirectory(), 'narvik.toml')
    await writeFile(config, `[peers]\ndeny = ["${source.peerId}"]\n`, { mode: 0o600 })
    const last = await TestDaemon.start({ bootstrap: [middle], env: { NARVIK_CONFIG: config } })
    await last.untilPeers(1)
    const toMiddle = middle.json<ImageJson>('fetch', source.narHash)
    await untilReceived(middle, 3.5 * MIB)
    const toLast = last.json<ImageJson>('fetch', source.narHash)
    const { peers } = await untilReceived(last, 3 * MIB)
    expect(peers).toEqual([expect.objectContaining({ peerId: middle.peerId })])
    expect((await middle.client.list())[0]?.state).not.toBe('verified')
    source.release()
    expect((await toMiddle).state).toBe('verified')
    expect((await toLast).state).toBe('verified')
    const evidence = await evidenceOf(last, source.narHash)
    expect(bytesFrom(evidence, middle.peerId)).toBe(bytesFrom(evidence))
  })
})
