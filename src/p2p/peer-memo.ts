import type { AbortOptions, Peer, PeerData, PeerId, PeerInfo, PeerStore } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/** Peers that are remembered, at most. */
const MAX_REMEMBERED = 1024

/**
 * Has the peer store do nothing where it would end as it began. libp2p writes a peer's protocol down at each stream, and the DHT each peer of
 * each answer: nearly always what is known, and each time a peer is read, decoded, compared and, at times, encoded again.
 */
export function rememberPeers(store: PeerStore): void {
  const known = new Map<string, KnownPeer>()
  let forgotten = 0
  const { merge, patch, save, getInfo, delete: remove } = bound(store)
  /** What the store answers is what it holds, unless something was deleted meanwhile. */
  const remember = async (answer: Promise<Peer>): Promise<Peer> => {
    const before = forgotten
    const peer = await answer
    if (known.size >= MAX_REMEMBERED) known.clear()
    if (forgotten === before) known.set(peer.id.toString(), new KnownPeer(peer))
    return peer
  }
  store.save = (id, data, options) => remember(save(id, data, options))
  store.patch = (id, data, options) => remember(patch(id, data, options))
  store.merge = (id, data, options) => {
    const peer = known.get(id.toString())
    return peer?.hasAll(data) === true ? Promise.resolve(peer.peer) : remember(merge(id, data, options))
  }
  store.getInfo = (id, options) => {
    const peer = known.get(id.toString())
    return peer === undefined ? getInfo(id, options) : Promise.resolve(peer.info)
  }
  store.delete = async (id, options) => {
    forgotten += 1
    known.delete(id.toString())
    await remove(id, options)
    known.delete(id.toString())
  }
}

class KnownPeer {
  readonly peer: Peer
  readonly #addresses: ReadonlySet<string>
  readonly #protocols: ReadonlySet<string>

  constructor(peer: Peer) {
    this.peer = peer
    this.#addresses = new Set(peer.addresses.map(({ multiaddr }) => multiaddr.toString()))
    this.#protocols = new Set(peer.protocols)
  }

  get info(): PeerInfo {
    return { id: this.peer.id, multiaddrs: this.peer.addresses.map(({ multiaddr }) => multiaddr) }
  }

  hasAll({ multiaddrs = [], protocols = [], ...rest }: PeerData): boolean {
    return Object.keys(rest).length === 0 && protocols.every(protocol => this.#protocols.has(protocol)) && multiaddrs.every(address => this.#hasAddress(address))
  }

  /** With or without the peer's id at its end: the store keeps it without. */
  #hasAddress(address: Multiaddr): boolean {
    return this.#addresses.has(address.toString().replace(`/p2p/${this.peer.id.toString()}`, ''))
  }
}

type Writing = (id: PeerId, data: PeerData, options?: AbortOptions) => Promise<Peer>

function bound(store: PeerStore): { merge: Writing, patch: Writing, save: Writing, getInfo: PeerStore['getInfo'], delete: PeerStore['delete'] } {
  return { merge: store.merge.bind(store), patch: store.patch.bind(store), save: store.save.bind(store), getInfo: store.getInfo.bind(store), delete: store.delete.bind(store) }
}
