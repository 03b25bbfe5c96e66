import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { NarvikError } from '../../src/errors.ts'
import { blake3Of } from '../../src/image/blake3.ts'
import { ChunkListBuilder } from '../../src/image/chunk-list.ts'
import { type ChunkSet, chunksOf } from '../../src/image/chunk-set.ts'
import { decodeManifest, encodeManifest, manifestDigest } from '../../src/image/manifest.ts'
import type { ImageMetadata } from '../../src/image/metadata.ts'
import { readNameRecord } from '../../src/image/name-record.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { chunkTree } from '../../src/nar/hash-tree.ts'
import { chunksHandler } from '../../src/p2p/chunks/handler.ts'
import { CHUNKS_PROTOCOL } from '../../src/p2p/chunks/messages.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { metaHandler } from '../../src/p2p/meta/handler.ts'
import { META_PROTOCOL } from '../../src/p2p/meta/messages.ts'
import { narHandler } from '../../src/p2p/nar/handler.ts'
import { NameBook, type NameDirectory, type PublishedName } from '../../src/p2p/names.ts'
import type { ChunkHolding, ImageSource, OpenStream } from '../../src/p2p/protocol.ts'
import { MemoryNetwork, MemoryRouter } from '../../src/p2p/router-memory.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { Announcer } from '../../src/tasks/announce.ts'
import type { FleetNode, TaskContext, TaskSettings } from '../../src/tasks/context.ts'
import { FetchQueue } from '../../src/tasks/fetch-queue.ts'
import { Jobs } from '../../src/tasks/jobs.ts'
import { Collector } from '../../src/tasks/space/collector.ts'
import { Space } from '../../src/tasks/space/space.ts'
import { Uses } from '../../src/tasks/space/uses.ts'
import { Receiving } from '../../src/tasks/swarm/receiving.ts'
import { someMetadata } from './images.ts'
import { MadeUpHolding } from './made-up-chunks.ts'
import { narBytes, type Tree } from './nar-bytes.ts'
import { openStore } from './store.ts'
import { streamPair } from './stream-pair.ts'
import { temporaryDirectory } from './temporary.ts'
import { plant } from './trees.ts'

/** An image with everything that a provider of it says, and its tree on disk. */
export interface TestImage {
  readonly narHash: NarHash
  readonly nar: Buffer
  readonly manifest: Uint8Array
  readonly metadata: ImageMetadata
  /** Where the tree is, to import it. */
  readonly path: string
}

export async function makeImage(tree: Tree): Promise<TestImage> {
  const path = join(await temporaryDirectory(), 'tree')
  plant(path, tree)
  const nar = narBytes(tree)
  const narHash = NarHash.fromBytes(createHash('sha256').update(nar).digest())
  const { listing, chunks } = await chunkTree(path)
  const manifest = encodeManifest(listing, chunks)
  const metadata = someMetadata(narHash, { narSize: nar.length, manifestDigest: manifestDigest(manifest) })
  return { narHash, nar, manifest, metadata, path }
}

/** What a peer does, where it does not do what it should. */
export interface Habit {
  /** Serves these bytes in place of the NAR. */
  readonly nar?: Buffer
  readonly manifest?: Uint8Array
  readonly metadata?: Partial<ImageMetadata>
  /** What its record in the DHT says. */
  readonly record?: { readonly narSize?: number, readonly manifestDigest?: string | null }
  /** Called before each piece; the stream waits for it and breaks off where it rejects. */
  readonly before?: (offset: number, signal: AbortSignal) => Promise<void> | void
  readonly answer?: 'not-found' | 'refused' | 'busy'
  /** Chunks that it has, where it has not all. */
  readonly have?: ChunkSet
  /** Says that it has not proven the image itself. */
  readonly unverified?: boolean
  /** Does not announce the image. */
  readonly isSilent?: boolean
}

/** Bytes that a peer sends at a time. */
export const PIECE_BYTES = 16 * 1024

/** A peer of a host under test, at the other end of real streams, that serves one image as its habit is. */
export class FakePeer implements ImageSource {
  readonly peerId: string
  readonly image: TestImage
  habit: Habit
  /** The byte at which each request for the NAR began. */
  readonly asked: number[] = []
  /** Chunks that it has sent, in their order. */
  readonly sent: number[] = []
  readonly turns = new Turns({ places: 16, quantumBytes: 2 ** 30, claimMs: 1000 })
  isGone = false

  constructor(peerId: string, image: TestImage, habit: Habit) {
    this.peerId = peerId
    this.image = image
    this.habit = habit
  }

  describe(narHash: NarHash): ReturnType<ImageSource['describe']> {
    if (this.habit.answer === 'not-found' || !narHash.equals(this.image.narHash)) return Promise.resolve(undefined)
    return Promise.resolve({ verified: this.habit.unverified !== true, metadata: { ...this.image.metadata, ...this.habit.metadata }, manifest: this.habit.manifest ?? this.image.manifest })
  }

  async *read(narHash: NarHash, offset: number, length: number, { signal }: { signal: AbortSignal }): AsyncGenerator<Uint8Array> {
    this.asked.push(offset)
    if (this.habit.answer === 'refused') throw new NarvikError('invalid-argument', 'no')
    if (!narHash.equals(this.image.narHash)) throw new NarvikError('not-found', 'none')
    const nar = this.habit.nar ?? this.image.nar
    for (let at = offset; at < offset + length; at += PIECE_BYTES) {
      await this.habit.before?.(at, signal)
      const piece = Buffer.alloc(Math.min(PIECE_BYTES, offset + length - at))
      nar.copy(piece, 0, at)
      yield piece
    }
  }
}

/** The chunks of an image from a made-up peer. One that lies has hashes of its own, as a host checks what it sends. */
function holdingOf(peer: FakePeer, narHash: NarHash, digest: string): ChunkHolding | undefined {
  const { habit, image } = peer
  const manifest = habit.manifest ?? image.manifest
  if (habit.answer !== undefined || !narHash.equals(image.narHash) || digest !== manifestDigest(manifest)) return undefined
  const { chunks } = decodeManifest(manifest)
  const bytes = habit.nar ?? image.nar
  const own = new ChunkListBuilder()
  for (let chunk = 0; chunk < chunks.count; chunk++) own.add(chunks.length(chunk), blake3Of(bytes.subarray(chunks.offset(chunk), chunks.offset(chunk + 1))))
  const holding = new MadeUpHolding({ chunks: own.build(), bytes }, habit.have)
  const never = new AbortController().signal
  holding.before = async run => {
    await peer.habit.before?.(chunks.offset(run.first), never)
    peer.sent.push(...chunksOf([run]))
  }
  return holding
}

/** Published names without a network: `found` is what the DHT answers. */
export class MemoryNames implements NameDirectory {
  readonly found = new Map<string, PublishedName>()
  readonly kept: PublishedName[] = []
  book = new NameBook()

  accept(value: Uint8Array): ReturnType<NameDirectory['accept']> {
    return this.book.accept(readNameRecord(value).key, value)
  }

  async keep(published: PublishedName): Promise<void> {
    await Promise.resolve()
    this.kept.push(published)
  }

  known(): ReturnType<NameDirectory['known']> {
    return this.book.known()
  }

  refusals(): ReturnType<NameDirectory['refusals']> {
    return this.book.refusals()
  }

  async find(publisher: string, name: string): Promise<PublishedName | undefined> {
    const value = this.found.get(`${publisher}/${name}`)?.value
    if (value !== undefined) await this.accept(value).catch(() => undefined)
    return this.book.newest(publisher, name)
  }
}

/** One host whose tasks are tested: a real store, and a network whose peers are made up. */
export class FakeFleet {
  readonly context: TaskContext
  readonly space: Space
  readonly banned = new Map<string, string>()
  /** What the fleet's publishers have said; shared with nobody. */
  readonly names = new MemoryNames()
  readonly #network = new MemoryNetwork()
  readonly #router: MemoryRouter
  readonly #peers = new Map<string, FakePeer>()
  readonly #listeners = new Set<(peerId: string) => void>()

  private constructor(store: Pick<TaskContext, 'catalog' | 'content'>, settings: Partial<TaskSettings>, nix: TaskContext['nix']) {
    this.#router = new MemoryRouter(this.#network, { peerId: 'this-host' })
    const jobs = new Jobs()
    const logger = silentLogger
    const parts = { ...store, jobs, logger, node: this.#node(), announcer: new Announcer({ router: this.#router, logger }), uses: new Uses({ ...store, logger }) }
    this.space = new Space({ ...parts, collector: new Collector(parts) }, { quotaBytes: null, minFreeBytes: 0, minCopies: 1 })
    this.context = {
      ...parts, nix, receiving: new Receiving(), space: this.space, queue: new FetchQueue(4), closures: new Jobs(), pathInfos: { get: (paths, options) => nix.pathInfo(paths, options) },
      settings: { announce: 'everything', guarded: { dataDir: store.content.dataDir, secrets: [join(store.content.dataDir, 'catalog.db')] }, useNix: true, storeAddMaxBytes: 0, installFetched: false, providerWaitMs: 0, stallMs: 20_000, slowBytesPerSecond: 0, banMs: 60_000, trust: { keys: [], needed: { 'nar-hash': 0, 'store-path': 1, 'name': 1 } }, ...settings },
    }
    onTestFinished(() => jobs.stop())
  }

  static async start({ dataDir, settings = {}, nix = noNix }: { dataDir?: string, settings?: Partial<TaskSettings>, nix?: TaskContext['nix'] } = {}): Promise<FakeFleet> {
    return new FakeFleet(await openStore(dataDir), settings, nix)
  }

  /** Adds a peer that has the image, and announces it unless it is silent. */
  async add(peerId: string, image: TestImage, habit: Habit = {}): Promise<FakePeer> {
    const peer = new FakePeer(peerId, image, habit)
    const { narHash, metadata: { narSize, manifestDigest: digest } } = image
    const router = new MemoryRouter(this.#network, { peerId })
    if (habit.isSilent !== true) await router.announce({ narHash, narSize, manifestDigest: digest, ...habit.record })
    this.#peers.set(peerId, peer)
    for (const listener of this.#listeners) listener(peerId)
    return peer
  }

  /** Whether this host announces the image. */
  announces(narHash: NarHash): boolean {
    return this.#network.hosts.get('this-host')?.held.has(narHash.toHex()) === true
  }

  #node(): FleetNode {
    return {
      peerId: 'this-host',
      addresses: [],
      router: this.#router,
      names: this.names,
      peers: () => [],
      connectedPeers: () => new Set(),
      routingPeers: 0,
      sending: [],
      traffic: new Map(),
      onPeerChange: () => () => undefined,
      onPeer: listener => {
        this.#listeners.add(listener)
        return () => { this.#listeners.delete(listener) }
      },
      ban: (peerId, _ms, reason) => { this.banned.set(peerId, reason) },
      bans: () => [],
      unban: () => undefined,
      isBanned: peerId => this.banned.has(peerId),
      open: (peerId, protocol, { signal }) => this.#open(peerId, protocol, signal),
    }
  }

  async #open(peerId: string, protocol: string, signal = new AbortController().signal): Promise<OpenStream> {
    const peer = this.#peers.get(peerId)
    if (peer === undefined || peer.isGone) throw new NarvikError('peer-failed', `Cannot reach peer ${peerId}: it is gone`)
    const { near, far } = await streamPair()
    const stopping = new AbortController().signal
    const components = { source: peer, logger: silentLogger, stopping, trafficOf: () => ({ received: 0, sent: 0 }), slots: new Slots(peer.habit.answer === 'busy' ? 0 : 1) }
    const handler = protocol === CHUNKS_PROTOCOL
      ? chunksHandler({ ...components, turns: peer.turns, source: { hold: (narHash, digest) => holdingOf(peer, narHash, digest) } })
      : protocol === META_PROTOCOL ? metaHandler(components) : narHandler(components)
    void handler(far, { remotePeer: { toString: () => 'this-host' } as never })
    return { stream: near, signal, traffic: { received: 0, sent: 0 } }
  }
}

const noNix: TaskContext['nix'] = {
  storeDir: '/nowhere/store',
  probe: () => Promise.resolve({ available: false, reason: 'there is none' }),
  pathInfo: () => Promise.reject(new NarvikError('nix-failed', 'there is none')),
  canWriteStore: () => Promise.resolve(false),
  addPath: () => Promise.reject(new NarvikError('nix-failed', 'there is none')),
  verify: () => Promise.reject(new Error('there is no Nix')), closureInfo: () => Promise.reject(new NarvikError('nix-failed', 'Cannot ask Nix: there is none')),
  startStoreDaemon: () => Promise.reject(new NarvikError('nix-failed', 'Cannot ask Nix: there is none')),
  hasRoot: () => Promise.resolve(false),
}

/** The same bytes with one of them changed. */
export function flipped(bytes: Uint8Array, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

/** A tree with contents of `size` bytes in one file, beside some small things. */
export function someTree(size = 300_000, seed = 7): Tree {
  const contents = Buffer.from(Uint8Array.from({ length: size }, (_, index) => (index * seed + (index >> 8)) & 0xff))
  return {
    kind: 'directory',
    entries: [
      { name: Buffer.from('disk'), tree: { kind: 'regular', contents, executable: false } },
      { name: Buffer.from('link'), tree: { kind: 'symlink', target: Buffer.from('disk') } },
      { name: Buffer.from('run'), tree: { kind: 'regular', contents: Buffer.from('#!/bin/sh\n'), executable: true } },
    ],
  }
}

/** A promise that is settled from outside. */
export function gate(): { readonly opened: Promise<void>, open: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  return { opened: promise.then(() => undefined), open: () => { resolve(undefined) } }
}
