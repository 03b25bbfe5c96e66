import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../../src/errors.ts'
import { silentLogger } from '../../../../src/log.ts'
import { narHandler } from '../../../../src/p2p/nar/handler.ts'
import type { OpenStream } from '../../../../src/p2p/protocol.ts'
import { MemoryNetwork, MemoryRouter } from '../../../../src/p2p/router-memory.ts'
import { Slots } from '../../../../src/p2p/slots.ts'
import { Copies, standing } from '../../../../src/tasks/space/copies.ts'
import { someHash } from '../../../helpers/images.ts'
import { streamPair } from '../../../helpers/stream-pair.ts'

const narHash = someHash('shared')
const { signal } = new AbortController()

/** Hosts that hold one image, and may be asked for it over real streams. */
class Fleet {
  readonly holders: Set<string>
  readonly network = new MemoryNetwork()
  asked = 0

  constructor(peerIds: readonly string[]) {
    this.holders = new Set(peerIds)
  }

  async start(): Promise<this> {
    for (const peerId of this.holders) await new MemoryRouter(this.network, { peerId }).announce({ narHash, narSize: 1, manifestDigest: null })
    return this
  }

  copiesOf(peerId: string): Copies {
    const network = new MemoryNetwork()
    for (const [other, host] of this.network.hosts) network.hosts.set(other, host)
    const router = new MemoryRouter(network, { peerId })
    return new Copies({ node: { peerId, router, open: other => this.#open(other) }, logger: silentLogger })
  }

  async #open(peerId: string): Promise<OpenStream> {
    this.asked++
    const { near, far } = await streamPair()
    const read = async function* (this: Fleet): AsyncGenerator<Uint8Array> {
      await Promise.resolve()
      if (!this.holders.has(peerId)) throw new NarvikError('not-found', 'none')
      yield* []
    }
    const source = { describe: () => Promise.resolve(undefined), read: () => read.call(this) }
    const handler = narHandler({ source, slots: new Slots(1), logger: silentLogger, stopping: signal, trafficOf: () => ({ received: 0, sent: 0 }) })
    void handler(far, { remotePeer: { toString: () => 'asker' } as never })
    return { stream: near, signal, traffic: { received: 0, sent: 0 } }
  }
}

describe('the copies of an image elsewhere', () => {
  const inOrder = ['a', 'b', 'c', 'd'].sort((one, two) => standing(narHash, one) < standing(narHash, two) ? -1 : 1)
  const [first = '', second = '', , last = ''] = inOrder

  it('are those that come before this host, asked themselves', async () => {
    const fleet = await new Fleet(inOrder).start()
    expect(await fleet.copiesOf(first).find(narHash, 1, signal)).toEqual([])
    expect(await fleet.copiesOf(second).find(narHash, 2, signal)).toEqual([first])
    expect((await fleet.copiesOf(last).find(narHash, 3, signal)).toSorted()).toEqual(inOrder.slice(0, 3).toSorted())
  })

  it('are not those that only say so in the DHT', async () => {
    const fleet = await new Fleet(inOrder).start()
    fleet.holders.delete(first)
    expect(await fleet.copiesOf(second).find(narHash, 1, signal)).toEqual([])
    expect(await fleet.copiesOf(last).stillHold(narHash, [first], signal)).toBe(false)
    expect(await fleet.copiesOf(last).stillHold(narHash, [second], signal)).toBe(true)
  })

  it('are asked for no more than are needed, and nobody where none is', async () => {
    const fleet = await new Fleet(inOrder).start()
    await fleet.copiesOf(last).find(narHash, 1, signal)
    expect(fleet.asked).toBe(1)
    expect(await fleet.copiesOf(last).find(narHash, 0, signal)).toEqual([])
    expect(fleet.asked).toBe(1)
  })

  it('are ordered in another way for each image', () => {
    const firsts = new Set(Array.from({ length: 40 }, (_, index) => ['a', 'b', 'c', 'd'].toSorted((one, two) => standing(someHash(`i${index}`), one) < standing(someHash(`i${index}`), two) ? -1 : 1)[0]))
    expect([...firsts].toSorted()).toEqual(['a', 'b', 'c', 'd'])
  })
})

describe('the rule of the last copies', () => {
  /** Steps of one host that collects: it asks, one after the other, those that come before it, as often as it may; then it goes. */
  interface Host { readonly peerId: string, confirmed: Set<string>, gone: boolean }

  it('never leaves fewer than the minimum, whatever the order in which hosts ask and go', () => {
    const schedule = fc.record({ hosts: fc.integer({ min: 1, max: 7 }), minCopies: fc.integer({ min: 1, max: 4 }), steps: fc.array(fc.tuple(fc.nat(6), fc.nat(7)), { maxLength: 200 }) })
    fc.assert(fc.property(schedule, ({ hosts: count, minCopies, steps }) => {
      const hosts: Host[] = Array.from({ length: count }, (_, index) => ({ peerId: `host-${index}`, confirmed: new Set(), gone: false }))
      for (const [who, what] of steps) {
        const host = hosts[who % count]
        const other = hosts[what % count]
        if (host === undefined || other === undefined || host.gone) continue
        // Eight of these at once is what a host does over some milliseconds; here others act between any two.
        if (standing(narHash, other.peerId) < standing(narHash, host.peerId) && !other.gone) host.confirmed.add(other.peerId)
        if (what === 7 && host.confirmed.size >= minCopies) host.gone = true
        expect(hosts.filter(({ gone }) => !gone).length).toBeGreaterThanOrEqual(Math.min(minCopies, count))
      }
    }), { numRuns: 2000 })
  })
})
