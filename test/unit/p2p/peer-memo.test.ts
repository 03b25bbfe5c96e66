import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Peer, PeerData, PeerId, PeerStore } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { beforeEach, describe, expect, it } from 'vitest'
import { rememberPeers } from '../../../src/p2p/peer-memo.ts'

const HERE = multiaddr('/ip4/10.0.0.1/tcp/4001')
const THERE = multiaddr('/ip4/10.0.0.2/tcp/4001')

/** A store that merges, and counts what it does. */
class CountingStore {
  readonly #peers = new Map<string, Peer>()
  merges = 0
  reads = 0
  /** Awaited before a merge is done. */
  hold: Promise<void> = Promise.resolve()

  async merge(id: PeerId, { multiaddrs = [], protocols = [], metadata }: PeerData): Promise<Peer> {
    this.merges += 1
    await this.hold
    const known = this.#peers.get(id.toString())
    const addresses = new Map([...known?.addresses.map(({ multiaddr }) => multiaddr) ?? [], ...multiaddrs].map(address => [address.toString().split('/p2p/')[0] ?? '', address]))
    const peer: Peer = {
      id, tags: new Map(), metadata: new Map(known?.metadata ?? Object.entries((metadata ?? {}) as Record<string, Uint8Array>)),
      addresses: Array.from(addresses.keys(), text => ({ multiaddr: multiaddr(text), isCertified: false })),
      protocols: [...new Set([...known?.protocols ?? [], ...protocols])],
    }
    this.#peers.set(id.toString(), peer)
    return peer
  }

  save(id: PeerId, data: PeerData): Promise<Peer> { return this.merge(id, data) }
  patch(id: PeerId, data: PeerData): Promise<Peer> { return this.merge(id, data) }
  getInfo(id: PeerId): Promise<{ id: PeerId, multiaddrs: Peer['addresses'][number]['multiaddr'][] }> {
    this.reads += 1
    const peer = this.#peers.get(id.toString())
    if (peer === undefined) return Promise.reject(new Error('not found'))
    return Promise.resolve({ id, multiaddrs: peer.addresses.map(({ multiaddr }) => multiaddr) })
  }
  delete(id: PeerId): Promise<void> {
    this.#peers.delete(id.toString())
    return Promise.resolve()
  }
}

describe('a peer store that remembers', () => {
  let counting: CountingStore
  let store: PeerStore
  let id: PeerId

  beforeEach(async () => {
    counting = new CountingStore()
    store = counting as unknown as PeerStore
    rememberPeers(store)
    id = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
  })

  it('writes nothing down that it has, with or without the peer at the end of the address', async () => {
    const first = await store.merge(id, { multiaddrs: [HERE], protocols: ['/a'] })
    expect(await store.merge(id, { protocols: ['/a'] })).toBe(first)
    expect(await store.merge(id, { multiaddrs: [multiaddr(`${HERE.toString()}/p2p/${id.toString()}`)] })).toBe(first)
    expect(counting.merges).toBe(1)
    expect((await store.getInfo(id)).multiaddrs.map(String)).toEqual([HERE.toString()])
    expect(counting.reads).toBe(0)
  })

  it('writes down what is new, and what is more than addresses and protocols', async () => {
    await store.merge(id, { multiaddrs: [HERE] })
    await store.merge(id, { multiaddrs: [HERE, THERE] })
    await store.merge(id, { multiaddrs: [HERE], protocols: ['/b'] })
    await store.merge(id, { multiaddrs: [HERE], metadata: { agent: Buffer.from('x') } })
    expect(counting.merges).toBe(4)
    expect((await store.getInfo(id)).multiaddrs.map(String)).toEqual([HERE.toString(), THERE.toString()])
  })

  it('forgets a peer that is deleted, also while something is written of it', async () => {
    await store.merge(id, { multiaddrs: [HERE] })
    await store.delete(id)
    await expect(store.getInfo(id)).rejects.toThrow('not found')
    await store.merge(id, { multiaddrs: [HERE] })
    expect(counting.merges).toBe(2)

    const { promise, resolve } = Promise.withResolvers<undefined>()
    counting.hold = promise.then(() => undefined)
    const merging = store.merge(id, { multiaddrs: [THERE] })
    await store.delete(id)
    resolve(undefined)
    await merging
    await store.delete(id)
    await expect(store.getInfo(id)).rejects.toThrow('not found')
    await store.merge(id, { multiaddrs: [THERE] })
    expect(counting.merges).toBe(4)
  })
})
