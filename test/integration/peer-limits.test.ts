import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { MAX_PEER_CONNECTIONS } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { NO_FLEET } from '../../src/p2p/fleet.ts'
import { newIdentity } from '../../src/p2p/identity.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { PeerLimits } from '../../src/p2p/peer-limits.ts'
import { NameBook } from '../../src/p2p/names.ts'
import { RecordBook } from '../../src/p2p/record-book.ts'
import { createStack, privateKeyOf } from '../../src/p2p/stack.ts'
import { expectFailure } from '../helpers/failure.ts'
import { allConnected, HASH, PATIENCE_MS, startNode } from '../helpers/nodes.ts'

describe('a host', () => {
  it('resets the requests of a peer that makes too many, and answers the others', async () => {
    const limits = new PeerLimits({ requests: { burst: 3, perSecond: 0 } })
    const host = await startNode({}, { limits })
    const [greedy, modest] = [await startNode({ bootstrap: host.addresses }), await startNode({ bootstrap: host.addresses })]
    await allConnected([host, greedy])
    await allConnected([host, modest])
    for (let request = 0; request < 3; request++) expect(await fetchMetadata(greedy, host.peerId, HASH)).toMatchObject({ status: 'ok' })
    await expectFailure(fetchMetadata(greedy, host.peerId, HASH), 'peer-failed', /Cannot receive the metadata/)
    expect(await fetchMetadata(modest, host.peerId, HASH)).toMatchObject({ status: 'ok' })
  })

  it('answers no more messages of the DHT than a peer may send', async () => {
    const announcement = { narHash: HASH, narSize: 1_000_000, manifestDigest: null }
    for (const [dhtMessages, reached] of [[{ burst: 0, perSecond: 0 }, 0], [{ burst: 1000, perSecond: 0 }, 1]] as const) {
      const host = await startNode({}, { limits: new PeerLimits({ dhtMessages }) })
      const peer = await startNode({ bootstrap: host.addresses })
      await allConnected([host, peer])
      if (reached > 0) await vi.waitFor(() => { expect(peer.routingPeers).toBe(1) }, { timeout: PATIENCE_MS })
      expect(await peer.router.announce(announcement)).toEqual({ reached })
    }
  })

  it('keeps no more connections with one peer than it may have', async () => {
    const host = await startNode()
    const greedy = await createStack({ gater: {}, book: new RecordBook(), names: new NameBook(), logger: silentLogger }, {
      privateKey: privateKeyOf(await newIdentity()), listen: [], mdns: false, fleet: NO_FLEET, agent: 'test',
    })
    await greedy.start()
    onTestFinished(async () => { await greedy.stop() })
    const [address = ''] = host.addresses
    for (let dials = 0; dials < 2 * MAX_PEER_CONNECTIONS; dials++) await greedy.dial(multiaddr(address), { force: true })
    await vi.waitFor(() => {
      expect(greedy.getConnections()).toHaveLength(MAX_PEER_CONNECTIONS)
      expect(host.peers()[0]?.addresses).toHaveLength(MAX_PEER_CONNECTIONS)
    }, { timeout: PATIENCE_MS })
  })
})
