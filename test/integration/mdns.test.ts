import dgram from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { fleetFingerprint } from '../../src/fleet-key.ts'
import { fleetKeys, handshakePrologue } from '../../src/p2p/fleet.ts'
import { MDNS_SERVICE } from '../../src/p2p/stack.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { HASH, LOOPBACK, PATIENCE_MS, startNode } from '../helpers/nodes.ts'

/** An address of this machine that others reach. */
function outerAddress(): string {
  const address = Object.values(networkInterfaces()).flat().find(one => one?.family === 'IPv4' && !one.internal)?.address
  if (address === undefined) throw new Error('this test needs a network interface beside loopback')
  return address
}

describe('what mDNS says to the network', () => {
  // Guard: MDNS_SERVICE is the same for every fleet.
  it('names neither the fleet nor an image', async () => {
    const address = outerAddress()
    const packets: Buffer[] = []
    const listener = dgram.createSocket({ type: 'udp4', reuseAddr: true })
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

  // Guards: `mdns = false`, and that who listens on loopback alone speaks to no network (stack.ts). Without a socket nothing is said.
  it.each([
    ['it is switched off', false, `/ip4/${outerAddress()}/tcp/0`],
    ['a host listens on loopback alone', true, LOOPBACK],
  ])('is nothing where %s', async (_when, mdns, listen) => {
    const open = vi.spyOn(dgram, 'createSocket')
    onTestFinished(() => { open.mockRestore() })
    await startNode({ listen: [listen], mdns, fleet: fleetKeys(rangeOf(7, 32)) })
    expect(open).not.toHaveBeenCalled()
    await startNode({ listen: [`/ip4/${outerAddress()}/tcp/0`], mdns: true, fleet: fleetKeys(rangeOf(7, 32)) })
    expect(open).toHaveBeenCalled()
  })
})
