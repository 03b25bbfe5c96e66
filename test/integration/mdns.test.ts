import { createSocket } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { describe, expect, it, onTestFinished } from 'vitest'
import { fleetFingerprint } from '../../src/fleet-key.ts'
import { fleetKeys, handshakePrologue } from '../../src/p2p/fleet.ts'
import { MDNS_SERVICE } from '../../src/p2p/stack.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { HASH, PATIENCE_MS, startNode } from '../helpers/nodes.ts'

describe('what mDNS says to the network', () => {
  // Guard: MDNS_SERVICE is the same for every fleet.
  it('names neither the fleet nor an image', async () => {
    const address = Object.values(networkInterfaces()).flat().find(one => one?.family === 'IPv4' && !one.internal)?.address
    if (address === undefined) throw new Error('this test needs a network interface beside loopback')
    const packets: Buffer[] = []
    const listener = createSocket({ type: 'udp4', reuseAddr: true })
    onTestFinished(() => { listener.close() })
    listener.on('message', bytes => { packets.push(bytes) })
    await new Promise<void>(resolve => { listener.bind(5353, () => { resolve() }) })
    listener.addMembership('224.0.0.251')
    const key = rangeOf(7, 32)
    const [a, b] = await Promise.all([0, 1].map(() => startNode({ fleet: fleetKeys(key), listen: [`/ip4/${address}/tcp/0`], mdns: true, agent: 'an-agent' })))
    if (a === undefined || b === undefined) throw new Error('too few')
    await a.router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })
    await a.waitForPeer(b.peerId, { signal: AbortSignal.timeout(PATIENCE_MS) })
    const said = Buffer.concat(packets).toString('latin1')
    expect(said).toContain(MDNS_SERVICE.split('.')[0])
    expect(said).toContain(a.peerId)
    for (const secret of [fleetFingerprint(key).slice(0, 8), Buffer.from(handshakePrologue(key)).toString('hex').slice(0, 8), Buffer.from(key).toString('latin1'), HASH.toNix32(), HASH.toHex(), 'an-agent']) {
      expect(said).not.toContain(secret)
    }
  })
})
