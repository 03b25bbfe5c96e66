import type { PeerId } from '@libp2p/interface'
import type { KadDHT } from '@libp2p/kad-dht'
import type { PeerLimits } from './peer-limits.ts'
import type { RecordStore } from './record-sweep.ts'

/** What the DHT has in plain sight, but not in its type. */
export interface DhtInside {
  readonly routingTable: { readonly size: number, addEventListener(type: 'peer:add', listener: () => void): void }
  readonly components: { readonly datastore: RecordStore<unknown> }
  readonly rpc: { handleMessage: (peerId: PeerId, message: unknown) => Promise<unknown> }
}

export function insideOf(dht: KadDHT): DhtInside {
  return dht as unknown as DhtInside
}

/** Has the DHT answer no more messages of a peer than it may send; the stream of a message too many is reset. */
export function limitDht(dht: KadDHT, limits: PeerLimits): void {
  const { rpc } = insideOf(dht)
  const handle = rpc.handleMessage.bind(rpc)
  rpc.handleMessage = (peerId, message) => limits.admitDht(peerId.toString()) ? handle(peerId, message) : Promise.reject(new Error('too many messages'))
}
