import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { identify, identifyPush, type Identify, type IdentifyPush } from '@libp2p/identify'
import type { ConnectionGater, Libp2p, PrivateKey } from '@libp2p/interface'
import { kadDHT, type KadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { mdns } from '@libp2p/mdns'
import { ping, type Ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import {
  DIAL_TIMEOUT_MS, MAX_CONNECTIONS, MAX_HALF_OPEN, MAX_INBOUND_CONNECTIONS_PER_SECOND, MAX_MUXED_STREAMS, RECORD_LIFETIME_MS, SOCKET_BUFFER_BYTES, STREAM_BUFFER_BYTES, STREAM_WINDOW_BYTES,
} from '../limits.ts'
import { NAME_NAMESPACE } from '../image/name-record.ts'
import type { Logger } from '../log.ts'
import { type FleetKeys, isLoopback } from './fleet.ts'
import { fleetNoise, openNoise } from './fleet-noise.ts'
import { libp2pLogger } from './libp2p-log.ts'
import { RECORD_NAMESPACE } from './record.ts'
import { thriftyYamux } from './muxer.ts'
import type { NameBook } from './names.ts'
import type { RecordBook } from './record-book.ts'
import { fleetTls } from './tls/encrypter.ts'

/** The fleet's DHT: no other network speaks it. */
export const KAD_PROTOCOL = '/narvik/kad/1.0.0'
/** What mDNS says that a host is: the same for all fleets, as a name made from the key would tell who belongs together. */
export const MDNS_SERVICE = '_narvik._udp.local'

export interface StackServices extends Record<string, unknown> {
  identify: Identify
  identifyPush: IdentifyPush
  ping: Ping
  dht: KadDHT
}

export type Stack = Libp2p<StackServices>

export interface StackInit {
  readonly privateKey: PrivateKey
  readonly listen: readonly string[]
  readonly mdns: boolean
  readonly fleet: FleetKeys
  readonly agent: string
}

/** Windows and buffers fit each other: the muxer's own would reset a fast stream as soon as it is paused. */
export const muxer = thriftyYamux({ maxInboundStreams: MAX_MUXED_STREAMS, maxOutboundStreams: MAX_MUXED_STREAMS, streamOptions: { maxStreamWindowSize: STREAM_WINDOW_BYTES, maxReadBufferLength: STREAM_BUFFER_BYTES } })

/** libp2p as this fleet uses it; not started. */
export async function createStack(
  { gater, book, names, logger }: { gater: ConnectionGater, book: RecordBook, names: NameBook, logger: Logger },
  { privateKey, listen, mdns: wantsMdns, fleet, agent }: StackInit,
): Promise<Stack> {
  // Who only listens on loopback has nothing to tell a network, and must not speak to it.
  const beyondLoopback = listen.some(address => !isLoopback(address))
  return createLibp2p<StackServices>({
    start: false,
    privateKey,
    logger: libp2pLogger(logger),
    nodeInfo: { name: 'narvik', userAgent: agent },
    addresses: { listen: [...listen] },
    transports: [tcp(socketBuffers())],
    // In the order of the dialler's liking; a host that doesn't speak the first is spoken to in the second.
    connectionEncrypters: [fleetTls(fleet), fleet.dial === undefined ? openNoise() : fleetNoise(fleet)],
    streamMuxers: [muxer],
    connectionGater: gater,
    peerDiscovery: wantsMdns && beyondLoopback ? [mdns({ serviceTag: MDNS_SERVICE })] : [],
    // Addresses would vanish an hour after they were first seen, though in use.
    peerStore: { maxAddressAge: Infinity, maxPeerAge: Infinity },
    // Its ping measures the latency; that it is late on a busy link is no reason to cut the link.
    connectionMonitor: { abortConnectionOnPingFailure: false },
    connectionManager: { dialTimeout: DIAL_TIMEOUT_MS, maxConnections: MAX_CONNECTIONS, inboundConnectionThreshold: MAX_INBOUND_CONNECTIONS_PER_SECOND, maxIncomingPendingConnections: MAX_HALF_OPEN },
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      ping: ping(),
      dht: dht(book, names),
    },
  })
}

function dht(book: RecordBook, names: NameBook): ReturnType<typeof kadDHT> {
  return kadDHT({
    protocol: KAD_PROTOCOL,
    // Left to itself the DHT waits for a public address, and forgets private ones.
    clientMode: false,
    peerInfoMapper: passthroughMapper,
    allowQueryWithZeroPeers: true,
    initialQuerySelfInterval: 100,
    querySelfInterval: 60_000,
    // The last namespace is the DHT's own, for public keys, which nobody here needs.
    validators: { [RECORD_NAMESPACE]: book.validate, [NAME_NAMESPACE]: names.validate, pk: () => { throw new Error('public keys are not kept') } },
    selectors: { [RECORD_NAMESPACE]: book.select, [NAME_NAMESPACE]: names.select },
    networkDialTimeout: { minTimeout: 1000, maxTimeout: 5000 },
    // The router renews its own announcements; this only lets those of others run out.
    reprovide: { validity: RECORD_LIFETIME_MS, threshold: 1, interval: 60_000 },
  })
}

/** The transport hands these to node:net, though its types don't say so. */
function socketBuffers(): object {
  return { dialOpts: { highWaterMark: SOCKET_BUFFER_BYTES }, listenOpts: { highWaterMark: SOCKET_BUFFER_BYTES } }
}

export function privateKeyOf(identity: Uint8Array): PrivateKey {
  return privateKeyFromProtobuf(identity)
}
