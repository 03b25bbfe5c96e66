import type { PeerId, PeerStore } from '@libp2p/interface'
import type { KadDHT } from '@libp2p/kad-dht'
import { MAX_NAMED_ADDRESSES, MAX_PEER_ADDRESSES } from '../limits.ts'
import type { PeerLimits } from './peer-limits.ts'
import { ProviderQuota } from './provider-quota.ts'
import type { RecordStore } from './record-sweep.ts'

/** What the DHT has in plain sight, but not in its type. */
export interface DhtInside {
  readonly routingTable: { readonly size: number, addEventListener(type: 'peer:add', listener: () => void): void }
  readonly components: { readonly datastore: RecordStore<unknown>, readonly peerStore: PeerStore }
  readonly contentRouting: { routingTable: { readonly kBucketSize: number } }
  readonly rpc: { handleMessage: (peerId: PeerId, message: unknown) => Promise<unknown> }
}

/** What a peer asks to be remembered as a provider. */
interface Announcing {
  readonly type: string
  readonly key?: Uint8Array
  readonly providers?: readonly { multiaddrs: readonly Uint8Array[] }[]
}

export function insideOf(dht: KadDHT): DhtInside {
  return dht as unknown as DhtInside
}

/** Has the DHT answer no more messages of a peer than it may send, and keep no more for it than it may have; the stream of a message too many is reset. No peer ends its look-ups early either. */
export function limitDht(dht: KadDHT, limits: PeerLimits, quota = new ProviderQuota()): void {
  findAllProviders(dht)
  const { rpc, components: { peerStore } } = insideOf(dht)
  const handle = rpc.handleMessage.bind(rpc)
  rpc.handleMessage = async (peerId, message) => {
    if (!limits.admitDht(peerId.toString())) throw new Error('too many messages')
    const { type, key, providers = [] } = message as Announcing
    if (type !== 'ADD_PROVIDER') return handle(peerId, message)
    if (key === undefined || !quota.takes(peerId.toString(), key)) throw new Error('too many announcements')
    const named = providers.map(provider => ({ ...provider, multiaddrs: provider.multiaddrs.slice(0, MAX_NAMED_ADDRESSES) }))
    const answer = await handle(peerId, { ...message as Announcing, providers: named })
    await forgetSurplus(peerStore, peerId)
    return answer
  }
}

/** Addresses are added to those before without an end: where they are more than any host has, a peer makes them up, and starts anew. */
async function forgetSurplus(peerStore: PeerStore, peerId: PeerId): Promise<void> {
  const known = await peerStore.has(peerId) ? await peerStore.get(peerId) : undefined
  if (known !== undefined && known.addresses.length > MAX_PEER_ADDRESSES) await peerStore.patch(peerId, { addresses: known.addresses.slice(-MAX_NAMED_ADDRESSES) })
}

/** Has a look-up of providers end when the peers that may know some were asked: left to itself it ends at the twentieth provider, also when one liar has made up all of them. */
function findAllProviders(dht: KadDHT): void {
  const { contentRouting } = insideOf(dht)
  contentRouting.routingTable = Object.create(contentRouting.routingTable, { kBucketSize: { value: Infinity } }) as { readonly kBucketSize: number }
}
