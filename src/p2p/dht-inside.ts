import type { Connection, PeerId, PeerStore, Stream } from '@libp2p/interface'
import type { KadDHT } from '@libp2p/kad-dht'
import { MAX_DHT_ANSWER_BYTES, MAX_DHT_REQUEST_BYTES, MAX_HEARD_PEERS, MAX_NAMED_ADDRESSES, MAX_PEER_ADDRESSES, MAX_PROVIDER_RECORDS, MAX_STORED_RECORDS } from '../limits.ts'
import type { PeerLimits } from './peer-limits.ts'
import type { RecordStore } from './record-sweep.ts'
import { StorageQuota } from './storage-quota.ts'

/** What the DHT has in plain sight, but not in its type. */
export interface DhtInside {
  readonly routingTable: { readonly size: number, addEventListener(type: 'peer:add', listener: () => void): void }
  readonly components: { readonly datastore: RecordStore<unknown> & Writable, readonly peerStore: PeerStore }
  readonly contentRouting: { routingTable: { readonly kBucketSize: number } }
  readonly rpc: {
    handleMessage: (peerId: PeerId, message: unknown) => Promise<unknown>
    onIncomingStream: (stream: Stream, connection: Connection) => Promise<void>
  }
  readonly network: {
    _writeReadMessage: (stream: Stream, ...rest: unknown[]) => Promise<unknown>
    safeDispatchEvent: (type: string, ...rest: unknown[]) => boolean
  }
}

interface Writable {
  put(key: unknown, value: Uint8Array, options?: unknown): unknown
}

/** A message of a peer, as far as it asks for something to be remembered. */
interface Announcing {
  readonly type: string
  readonly key?: Uint8Array
  readonly record?: Uint8Array
  readonly providers?: readonly { multiaddrs: readonly Uint8Array[] }[]
}

export function insideOf(dht: KadDHT): DhtInside {
  return dht as unknown as DhtInside
}

/** Has the DHT answer no more messages of a peer than it may send, and keep no more for it than it may have; the stream of a message too many is reset. No peer ends its look-ups early either. To be called before the DHT is started. */
export function limitDht(dht: KadDHT, limits: PeerLimits): void {
  const providers = new StorageQuota({ inAll: MAX_PROVIDER_RECORDS })
  const records = new StorageQuota({ inAll: MAX_STORED_RECORDS })
  findAllProviders(dht)
  boundMessages(dht)
  hearOfFew(dht)
  keepNoMoreThanValues(dht)
  const { rpc, components: { peerStore } } = insideOf(dht)
  const handle = rpc.handleMessage.bind(rpc)
  rpc.handleMessage = async (peerId, message) => {
    if (!limits.admitDht(peerId.toString())) throw new Error('too many messages')
    const { type, key = new Uint8Array(), record, providers: announced = [] } = message as Announcing
    if (type === 'PUT_VALUE' && !records.takes(peerId.toString(), key, record?.byteLength)) throw new Error('too many records')
    if (type !== 'ADD_PROVIDER') return handle(peerId, message)
    if (!providers.takes(peerId.toString(), key)) throw new Error('too many announcements')
    const named = announced.map(provider => ({ ...provider, multiaddrs: provider.multiaddrs.slice(0, MAX_NAMED_ADDRESSES) }))
    const answer = await handle(peerId, { ...message as Announcing, providers: named })
    await forgetSurplus(peerStore, peerId)
    return answer
  }
}

/** Node cuts small buffers out of slabs of 64 KiB: a record that is kept for half an hour as a part of one would keep all of it. */
function keepNoMoreThanValues(dht: KadDHT): void {
  const { datastore } = insideOf(dht).components
  const put = datastore.put.bind(datastore)
  datastore.put = (key, value, options) => put(key, new Uint8Array(value), options)
}

/** Has no message of another host take more memory than any that is meant: left to itself the DHT takes 4 MiB on each stream, for as long as a peer likes. */
function boundMessages(dht: KadDHT): void {
  const { rpc, network } = insideOf(dht)
  const serve = rpc.onIncomingStream.bind(rpc)
  rpc.onIncomingStream = (stream, connection) => serve(bounded(stream, MAX_DHT_REQUEST_BYTES), connection)
  const ask = network._writeReadMessage.bind(network)
  network._writeReadMessage = (stream, ...rest) => ask(bounded(stream, MAX_DHT_ANSWER_BYTES), ...rest)
}

/** Has this host hear of no more peers through one message than any that is meant names: each is remembered and dialled. The message is told of in one go. */
function hearOfFew(dht: KadDHT): void {
  const { network } = insideOf(dht)
  const tell = network.safeDispatchEvent.bind(network)
  let heard = 0
  network.safeDispatchEvent = (type, ...rest) => {
    if (type !== 'peer') return tell(type, ...rest)
    if (heard === 0) queueMicrotask(() => { heard = 0 })
    heard += 1
    return heard <= MAX_HEARD_PEERS && tell(type, ...rest)
  }
}

/** The stream, which is reset when it has brought more than so many bytes. */
function bounded(stream: Stream, bytes: number): Stream {
  let received = 0
  stream.addEventListener('message', ({ data }) => {
    received += data.byteLength
    if (received > bytes) stream.abort(new Error(`found a message of more than ${bytes} bytes, needed a shorter one`))
  })
  return stream
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
