import { describe, expect, it, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import type { P2pNode } from '../../src/p2p/node.ts'
import { describeRouter } from '../helpers/router-conformance.ts'
import { allConnected, HASH, PATIENCE_MS, startFleet, startNode } from '../helpers/nodes.ts'

describeRouter('DhtRouter', count => startFleet(count))

async function found(node: P2pNode): Promise<string[]> {
  const ids: string[] = []
  for await (const { peerId } of node.router.find(HASH)) ids.push(peerId)
  return ids
}

async function untilRouted(node: P2pNode, peers: number): Promise<void> {
  await vi.waitFor(() => { expect(node.routingPeers).toBe(peers) }, { timeout: PATIENCE_MS })
}

describe('a host that comes later', () => {
  it('is told of what was announced before there was anybody to tell', async () => {
    const lines: string[] = []
    const logger = { ...silentLogger, debug: (line: string) => { lines.push(line) } }
    const a = await startNode({}, { logger })
    expect(await a.router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })).toEqual({ reached: 0 })
    const b = await startNode({ bootstrap: a.addresses })
    await allConnected([a, b])
    await vi.waitFor(() => { expect(lines).toContain('renewed announcements') }, { timeout: PATIENCE_MS })
    // So that nobody but the newcomer itself can know.
    await a.stop()
    expect(await found(b)).toEqual([a.peerId])
  })

  it('does not find who has withdrawn and gone, but finds who has only gone', async () => {
    const [a, b, c] = await startFleet(3)
    if (a === undefined || b === undefined || c === undefined) throw new Error('too few')
    await Promise.all([a, b].map(({ router }) => router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })))
    await a.router.withdraw(HASH)
    await Promise.all([a.stop(), b.stop()])
    const d = await startNode({ bootstrap: c.addresses })
    await untilRouted(d, 1)
    expect(await found(d)).toEqual([b.peerId])
  })
})
