import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import type { PrivateKey, Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { peerIdFromString } from '@libp2p/peer-id'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { create as createDigest } from 'multiformats/hashes/digest'
import { onTestFinished } from 'vitest'
import type { ChunkList } from '../../src/image/chunk-list.ts'
import { decodeManifest } from '../../src/image/manifest.ts'
import type { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { Layout } from '../../src/nar/layout.ts'
import { readRange } from '../../src/nar/read-range.ts'
import { insideOf } from '../../src/p2p/dht-inside.ts'
import type { FleetKeys } from '../../src/p2p/fleet.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { newIdentity } from '../../src/p2p/identity.ts'
import { NameBook } from '../../src/p2p/names.ts'
import { RecordBook } from '../../src/p2p/record-book.ts'
import { createStack, privateKeyOf, type Stack } from '../../src/p2p/stack.ts'
import { verifyTree } from '../../src/verify/pipeline.ts'
import { LOOPBACK } from './nodes.ts'

/** A message of the DHT, as its wire has it. */
export interface DhtMessage {
  readonly type: 'PUT_VALUE' | 'GET_VALUE' | 'ADD_PROVIDER' | 'GET_PROVIDERS' | 'FIND_NODE' | 'PING'
  readonly key?: Uint8Array
  readonly record?: Uint8Array
  readonly providers: readonly DhtPeer[]
  readonly closer: readonly DhtPeer[]
}

export interface DhtPeer {
  readonly id: Uint8Array
  readonly multiaddrs: readonly Uint8Array[]
}

interface Answered {
  readonly name: string
  readonly record?: { readonly value: Uint8Array }
  readonly providers?: readonly { readonly multiaddrs: readonly unknown[] }[]
}

/** What the DHT of a hostile peer is made to do; its types hide it. */
interface Network {
  sendRequest(to: unknown, message: object, options: { signal: AbortSignal, path: object }): AsyncIterable<Answered>
  sendMessage(to: unknown, message: object, options: { signal: AbortSignal, path: object }): AsyncIterable<Answered>
}

const PATH = { index: -1, queued: 0, running: 0, total: 0 }

/** A member of the fleet that says on the wire what a test wants said, with libp2p as hosts use it and nothing of Narvik's above. */
export class HostilePeer {
  readonly stack: Stack
  readonly privateKey: PrivateKey
  readonly #target: string

  private constructor(stack: Stack, privateKey: PrivateKey, target: string) {
    this.stack = stack
    this.privateKey = privateKey
    this.#target = target
  }

  /** A peer that is connected with the host that it is to attack; it goes with the test. */
  static async join({ addresses }: { readonly addresses: readonly string[] }, fleet: FleetKeys): Promise<HostilePeer> {
    const peer = await HostilePeer.alone(fleet, addresses[0])
    // The host may dial at the same moment, and close one of the two.
    for (let attempts = 5; peer.stack.getConnections().length === 0; attempts--) {
      try { await peer.stack.dial(addresses.map(address => multiaddr(address))) } catch (error) { if (attempts === 0) throw error }
    }
    return peer
  }

  /** A peer that waits for others to come. */
  static async alone(fleet: FleetKeys, target = ''): Promise<HostilePeer> {
    const privateKey = privateKeyOf(await newIdentity())
    const components = { gater: {}, book: new RecordBook(), names: new NameBook(), logger: silentLogger }
    const stack = await createStack(components, { privateKey, listen: [LOOPBACK], mdns: false, fleet, agent: 'hostile' })
    await stack.start()
    onTestFinished(async () => { await stack.stop() })
    return new HostilePeer(stack, privateKey, target)
  }

  get peerId(): string {
    return this.stack.peerId.toString()
  }

  get addresses(): string[] {
    return this.stack.getMultiaddrs().map(String)
  }

  /** A stream of a protocol to the host. */
  open(protocol: string): Promise<Stream> {
    return this.stack.dialProtocol(multiaddr(this.#target), protocol)
  }

  /** Answers a protocol in its own way. */
  async serve(protocol: string, handler: (stream: Stream) => void | Promise<void>): Promise<void> {
    await this.stack.handle(protocol, async stream => {
      // What the host resets fails here, and is what the test looks at from the other end.
      try { await handler(stream) } catch { stream.abort(new Error('gone')) }
    }, { maxInboundStreams: 1000 })
  }

  /** Is gone from one moment to the next, as a machine that is switched off, but for the sockets that its kernel closes. */
  async vanish(): Promise<void> {
    for (const connection of this.stack.getConnections()) connection.abort(new Error('gone'))
    await this.stack.stop()
  }

  /** Answers the DHT's messages in its own way; undefined answers nothing. */
  answerDht(answer: (message: DhtMessage) => Promise<DhtMessage | undefined> | DhtMessage | undefined): void {
    insideOf(this.stack.services.dht).rpc.handleMessage = async (_peerId, message) => answer(message as DhtMessage)
  }

  /** Sends one message of the DHT as it is; answers with what came back, or undefined where the stream was reset. */
  async ask(message: Partial<DhtMessage>): Promise<Answered | undefined> {
    const { network } = this.stack.services.dht as unknown as { network: Network }
    const to = peerIdFromString(this.#target.split('/').at(-1) ?? '')
    const send = message.type === 'ADD_PROVIDER' ? network.sendMessage.bind(network) : network.sendRequest.bind(network)
    for await (const event of send(to, message, { signal: AbortSignal.timeout(30_000), path: PATH })) if (event.name === 'PEER_RESPONSE') return event
    return undefined
  }

  /** This peer as the DHT names it, with the addresses that are given. */
  asProvider(addresses: readonly string[] = this.addresses): DhtPeer {
    return { id: this.stack.peerId.toMultihash().bytes, multiaddrs: addresses.map(address => multiaddr(address).bytes) }
  }
}

/** An image that a hostile peer offers: the right bytes, to be falsified as a test wants. */
export interface OfferedImage {
  readonly narHash: NarHash
  readonly narSize: number
  readonly metadata: Buffer
  readonly manifest: Uint8Array
  readonly manifestDigest: string
  readonly chunks: ChunkList
  readonly nar: Buffer
}

/** An image of one file of other bytes each time. */
export async function makeOffer(directory: string, size: number): Promise<OfferedImage> {
  const tree = join(directory, `offer-${randomBytes(8).toString('hex')}`)
  await writeFile(tree, randomBytes(size))
  const { measured } = await verifyTree({ tree, expected: null, claims: [] })
  if (measured === null) throw new Error(`nothing at ${tree}`)
  const { narHash, narSize, manifest, manifestDigest } = measured
  const decoded = decodeManifest(manifest)
  const parts: Buffer[] = []
  for await (const part of readRange(tree, Layout.describedBy(decoded), 0, narSize)) parts.push(part)
  const metadata = { narHash: narHash.toSri(), narSize, storePath: null, references: [], deriver: null, ca: null, signatures: [], name: null, manifestDigest }
  return { narHash, narSize, metadata: Buffer.from(JSON.stringify(metadata)), manifest, manifestDigest, chunks: decoded.chunks, nar: Buffer.concat(parts) }
}

/** What a host says of an image that it has, with the metadata and manifest that are given in place of the right ones. */
export function introductionOf(offer: OfferedImage, { metadata = offer.metadata, manifest = offer.manifest }: { metadata?: Uint8Array, manifest?: Uint8Array } = {}): Uint8Array {
  const header = encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength: metadata.length, manifestLength: manifest.length })
  return Uint8Array.from(Buffer.concat([header, metadata, manifest]))
}

/** What the DHT calls an image. */
export function providerKey(narHash: NarHash): Uint8Array {
  return CID.createV1(raw.code, createDigest(0x12, narHash.bytes)).bytes
}

/** Resolves when so many bytes have come on a stream since this was called, and with all that have; undefined where it ends before. */
export async function heard(stream: Stream, bytes: number): Promise<Uint8Array | undefined> {
  const { promise, resolve } = Promise.withResolvers<Uint8Array | undefined>()
  const parts: Uint8Array[] = []
  stream.addEventListener('message', ({ data }) => {
    parts.push(Uint8Array.from(data.subarray()))
    if (parts.reduce((sum, part) => sum + part.byteLength, 0) >= bytes) resolve(Buffer.concat(parts))
  })
  stream.addEventListener('close', () => { resolve(undefined) })
  return promise
}

/** Milliseconds from now until the other end has ended the stream. */
export async function untilEnded(stream: Stream): Promise<number> {
  const start = performance.now()
  if (stream.status === 'open') await new Promise(resolve => { stream.addEventListener('close', resolve, { once: true }) })
  return performance.now() - start
}

/** A bare TCP connection to the host, from an address of this machine, and the milliseconds until it is closed by it. */
export async function knockAt({ addresses }: { readonly addresses: readonly string[] }, from = '127.0.0.1'): Promise<{ readonly socket: Socket, readonly ended: Promise<number> }> {
  const [, , address = '', , port = ''] = (addresses[0] ?? '').split('/')
  const start = performance.now()
  const socket = connect({ host: address, port: Number(port), localAddress: from })
  socket.on('error', () => undefined)
  onTestFinished(() => { socket.destroy() })
  const ended = new Promise<number>(resolve => { socket.on('close', () => { resolve(performance.now() - start) }) })
  socket.resume()
  // One that is refused at once has ended as well.
  await Promise.race([once(socket, 'connect').catch(() => ended), ended])
  return { socket, ended }
}

/** Files and sockets that a process has open. */
export async function openFiles(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length
}
