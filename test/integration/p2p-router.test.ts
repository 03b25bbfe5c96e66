import { describe, expect, it, vi } from 'vitest'
import { describeRouter } from '../helpers/router-conformance.ts'
import { allConnected, HASH, PATIENCE_MS, startFleet, startNode } from '../helpers/nodes.ts'

describeRouter('DhtRouter', count => startFleet(count))

describe('a host that comes later', () => {
  it('finds what was announced before there was anybody to tell', async () => {
    const a = await startNode()
    expect(await a.router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })).toEqual({ reached: 0 })
    const b = await startNode({ bootstrap: a.addresses })
    await allConnected([a, b])
    await vi.waitFor(async () => {
      const found: string[] = []
      for await (const { peerId } of b.router.find(HASH)) found.push(peerId)
      expect(found).toEqual([a.peerId])
    }, { timeout: PATIENCE_MS })
  })

  it('does not find who has withdrawn and gone', async () => {
    const [a, b, c] = await startFleet(3)
    if (a === undefined || b === undefined || c === undefined) throw new Error('too few')
    await a.router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })
    await a.router.withdraw(HASH)
    await a.stop()
    const d = await startNode({ bootstrap: [...b.addresses, ...c.addresses] })
    await allConnected([b, c, d])
    for await (const provider of d.router.find(HASH)) throw new Error(`found ${provider.peerId}, which has withdrawn`)
  })
})
