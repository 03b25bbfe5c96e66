import type { Connection, IdentifyResult, PeerInfo as Libp2pPeerInfo } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { messageOf, NarvikError } from '../errors.ts'
import { DIAL_TIMEOUT_MS, MAX_INBOUND_STREAMS, MAX_NAMED_ADDRESSES, MAX_OUTBOUND_STREAMS, MAX_PEER_CONNECTIONS, MAX_SERVED_CLOSURES, MAX_SERVED_MANIFESTS, MAX_SERVED_STREAMS, STOP_TIMEOUT_MS, SWARM_CLAIM_MS, SWARM_PLACES, SWARM_QUANTUM_BYTES } from '../limits.ts'
import type { Logger } from '../log.ts'
import { peerFailed } from './ask.ts'
import { type Ban, Bans } from './bans.ts'
import { Books, type ProtocolTotals, type Sending } from './books.ts'
import { chunksHandler } from './chunks/handler.ts'
import { CHUNKS_PROTOCOL } from './chunks/messages.ts'
import { Turns } from './chunks/turns.ts'
import { closureHandler } from './closure/handler.ts'
import { CLOSURE_PROTOCOL } from './closure/messages.ts'
import { insideOf, limitDht } from './dht-inside.ts'
import { checkListen, NO_FLEET } from './fleet.ts'
import { Gate, type PeerLists } from './gate.ts'
import { newIdentity } from './identity.ts'
import { Liveness } from './liveness.ts'
import { leaveRedialling, Mesh, parseBootstrap } from './mesh.ts'
import { metaHandler } from './meta/handler.ts'
import { META_PROTOCOL } from './meta/messages.ts'
import { narHandler } from './nar/handler.ts'
import { NAR_PROTOCOL } from './nar/messages.ts'
import { DhtNames, NameBook, type NameDirectory } from './names.ts'
import { Neighbours } from './neighbours.ts'
import type { NodeComponents, NodeInit } from './node-init.ts'
import { rememberPeers } from './peer-memo.ts'
import { PeerLimits } from './peer-limits.ts'
import type { PeerChange, PeerInfo, PeerListener } from './peer-info.ts'
import type { ChunkSource, ClosureSource, ImageSource, OpenStream, StreamHandler, StreamOpener, Traffic } from './protocol.ts'
import { Paces, type RateLimits } from './pace.ts'
import { RecordBook } from './record-book.ts'
import { RecordSweep } from './record-sweep.ts'
import { DhtRouter } from './router-dht.ts'
import type { ContentRouter } from './router.ts'
import { Slots } from './slots.ts'
import { createStack, privateKeyOf, type Stack } from './stack.ts'

export type { NodeComponents, NodeInit } from './node-init.ts'
export type { PeerInfo } from './peer-info.ts'

/** Those that this host serves besides libp2p's own. */
const PROTOCOLS: readonly string[] = [META_PROTOCOL, NAR_PROTOCOL, CLOSURE_PROTOCOL, CHUNKS_PROTOCOL]

/**
 * Makes this host's node; it is not started.
 * @throws NarvikError `refused` where it would let strangers in, `invalid-config` where an address or key is malformed.
 */
export async function createNode({ logger, source, closures, chunks, onServed, banStore, limits = new PeerLimits(), now }: NodeComponents, init: NodeInit): Promise<P2pNode> {
  const fleet = init.fleet ?? NO_FLEET
  const isOpen = checkListen(init.listen, { inFleet: fleet.dial !== undefined, allowOpen: init.allowOpen ?? false })
  if (isOpen) logger.warn('whoever reaches its port can fetch: this host is in no fleet, and allow_open is set', { listen: init.listen })
  const bootstrap = parseBootstrap(init.bootstrap ?? [])
  const privateKey = privateKeyOf(init.identity ?? await newIdentity())
  const bans = new Bans({ store: banStore, now })
  const gate = new Gate(bans, init.peers)
  const book = new RecordBook({ now })
  const nameBook = new NameBook({ now })
  const stack = await createStack({ gater: gate.gater, book, names: nameBook, logger }, {
    privateKey, listen: init.listen, mdns: init.mdns ?? false, fleet, agent: init.agent ?? 'narvik',
  })
  const isBanned = (peerId: string): boolean => gate.refuses(peerId)
  rememberPeers(stack.peerStore)
  leaveRedialling(stack)
  const { services: { dht }, peerId } = stack
  const { routingTable } = insideOf(dht)
  const neighbours = new Neighbours({ table: routingTable, lookUp: options => dht.getClosestPeers(peerId.toMultihash().bytes, options) })
  limitDht(dht, limits)
  const mesh = new Mesh({ libp2p: stack, logger, isBanned }, { bootstrap, redialMinMs: init.redialMinMs, redialMaxMs: init.redialMaxMs })
  const router = new DhtRouter({
    dht, routingTable, peerId, privateKey, book, logger, isBanned,
    connected: () => connectedTo(stack),
    remember: async provider => {
      await rememberPeer(stack, provider)
      // Whom the mesh forgets, the host forgets: those that are made up would fill its memory.
      mesh.hearOf(provider.id)
    },
  }, { now })
  const names = new DhtNames({ dht, table: routingTable, book: nameBook, logger }, { now })
  const sweep = new RecordSweep({ store: insideOf(dht).components.datastore, logger }, { now })
  return new P2pNode({ stack, router, names, neighbours, mesh, sweep, bans, gate, limits, source, closures, chunks, onServed, logger }, init)
}

interface Parts {
  readonly stack: Stack
  readonly router: DhtRouter
  readonly names: DhtNames
  readonly neighbours: Neighbours
  readonly mesh: Mesh
  readonly sweep: RecordSweep<unknown>
  readonly bans: Bans
  readonly gate: Gate
  readonly limits: PeerLimits
  readonly source: ImageSource
  readonly closures: ClosureSource | undefined
  readonly chunks: ChunkSource | undefined
  readonly onServed: NodeComponents['onServed']
  readonly logger: Logger
}

/** This host among the others. Made by `createNode`; starts and stops once. */
export class P2pNode implements StreamOpener {
  readonly #parts: Parts
  readonly #listen: readonly string[]
  readonly #stallMs: number | undefined
  readonly #liveness: Liveness
  readonly #stopping = new AbortController()
  readonly #serving = new Set<Promise<void>>()
  readonly #books = new Books(peerId => ({ pace: this.#paces.of(peerId), flight: this.#parts.limits.inFlight.newPeer() }))
  readonly #outbound = new Map<string, Slots>()
  readonly #agents = new Map<string, string>()
  readonly #paces = new Paces()
  readonly #narSlots = new Slots(MAX_SERVED_STREAMS)
  readonly #listeners = new Set<PeerListener>()
  readonly #turns = new Turns({ places: SWARM_PLACES, quantumBytes: SWARM_QUANTUM_BYTES, claimMs: SWARM_CLAIM_MS })
  #turnsTimer: NodeJS.Timeout | undefined

  constructor(parts: Parts, { listen, stallMs, probeIntervalMs, probeTimeoutMs }: NodeInit) {
    const { stack, logger } = parts
    this.#parts = parts
    this.#listen = listen
    this.#stallMs = stallMs
    this.#liveness = new Liveness({
      libp2p: stack, logger, ping: (peerId, options) => stack.services.ping.ping(peerId, options), trafficOf: peerId => this.trafficOf(peerId),
    }, { intervalMs: probeIntervalMs, timeoutMs: probeTimeoutMs })
  }

  get peerId(): string {
    return this.#parts.stack.peerId.toString()
  }

  /** Multiaddrs that the host listens on, with its peer id. */
  get addresses(): string[] {
    return this.#parts.stack.getMultiaddrs().map(String)
  }

  get router(): ContentRouter {
    return this.#parts.router
  }

  get names(): NameDirectory {
    return this.#parts.names
  }

  /** Peers that this host's DHT knows to answer. */
  get routingPeers(): number {
    return insideOf(this.#parts.stack.services.dht).routingTable.size
  }

  async start(): Promise<void> {
    const { stack, router, names, neighbours, mesh, sweep, source, closures, chunks, onServed, logger } = this.#parts
    const components = (protocol: string) => ({ source, logger, onServed, stopping: this.#stopping.signal, trafficOf: (peerId: string) => this.#books.open(peerId, protocol) })
    const init = { stallMs: this.#stallMs }
    await this.#handle(META_PROTOCOL, metaHandler({ ...components(META_PROTOCOL), slots: new Slots(MAX_SERVED_MANIFESTS) }, init))
    await this.#handle(NAR_PROTOCOL, narHandler({ ...components(NAR_PROTOCOL), slots: this.#narSlots }, init))
    if (closures !== undefined) await this.#handle(CLOSURE_PROTOCOL, closureHandler({ ...components(CLOSURE_PROTOCOL), closures, slots: new Slots(MAX_SERVED_CLOSURES) }, init))
    if (chunks !== undefined) await this.#handle(CHUNKS_PROTOCOL, chunksHandler({ ...components(CHUNKS_PROTOCOL), source: chunks, turns: this.#turns }, init))
    this.#turnsTimer = setInterval(() => { this.#turns.expire(performance.now()) }, SWARM_CLAIM_MS).unref()
    stack.addEventListener('peer:identify', ({ detail }) => { this.#onIdentify(detail) })
    stack.addEventListener('peer:connect', ({ detail }) => { this.#tell({ peerId: detail.toString(), change: 'connected', reason: null }) })
    stack.addEventListener('peer:disconnect', ({ detail }) => {
      this.#agents.delete(detail.toString())
      this.#parts.limits.forgetIdle()
      this.#tell({ peerId: detail.toString(), change: 'disconnected', reason: null })
    })
    stack.addEventListener('connection:open', ({ detail }) => { this.#onConnection(detail) })
    router.start()
    names.start()
    neighbours.start()
    this.#liveness.start()
    sweep.start()
    mesh.start()
    try {
      await stack.start()
    } catch (error) {
      await this.stop()
      throw startFailed(error, this.#listen)
    }
  }

  /** Ends open transfers with `interrupted`, and then the connections. */
  async stop(): Promise<void> {
    const { stack, router, names, neighbours, mesh, sweep } = this.#parts
    this.#stopping.abort(new NarvikError('interrupted', 'Cannot go on with the transfer: found the daemon stopping, needed it running'))
    clearInterval(this.#turnsTimer)
    mesh.stop()
    neighbours.stop()
    this.#liveness.stop()
    sweep.stop()
    await stack.unhandle([...PROTOCOLS])
    const served = Promise.allSettled(this.#serving)
    await Promise.race([Promise.all([served, router.stop(), names.stop()]), delay(STOP_TIMEOUT_MS)])
    await stack.stop()
  }

  /** Ids of the peers that are connected. */
  connectedPeers(): ReadonlySet<string> {
    return connectedTo(this.#parts.stack)
  }

  /** The connected peers, and the banned ones. */
  peers(): PeerInfo[] {
    const connections = Map.groupBy(this.#parts.stack.getConnections(), ({ remotePeer }) => remotePeer.toString())
    const ids = new Set([...connections.keys(), ...this.#parts.bans.list().map(({ peerId }) => peerId)])
    return [...ids].map(peerId => this.#describe(peerId, connections.get(peerId) ?? []))
  }

  /** Keeps a peer away, for `ms` milliseconds the first time and longer each further time: its connections end, and it is neither dialled, let in nor found. */
  ban(peerId: string, ms: number, reason: string): void {
    const { until, times } = this.#parts.bans.add(peerId, ms, reason)
    this.#parts.logger.warn('banned a peer', { peerId, until: new Date(until).toISOString(), times, reason })
    this.#tell({ peerId, change: 'banned', reason })
    this.#cut(peerId, `banned: ${reason}`)
  }

  /** The bans that are in force. */
  bans(): Ban[] {
    return this.#parts.bans.list()
  }

  /** Ends a ban, and forgets those before it; undefined where there is none in force. */
  unban(peerId: string): Ban | undefined {
    const lifted = this.#parts.bans.lift(peerId)
    if (lifted === undefined) return undefined
    this.#parts.logger.info('lifted a ban', { peerId })
    this.#parts.mesh.wake()
    return lifted
  }

  /** Whether this host has nothing to do with a peer: it is banned, or the configuration keeps it away. */
  isBanned(peerId: string): boolean {
    return this.#parts.gate.refuses(peerId)
  }

  /** Puts other lists into force; the connections of peers that they keep away end. */
  setPeers(lists: PeerLists): void {
    this.#parts.gate.setLists(lists)
    for (const peerId of this.connectedPeers()) {
      if (this.#parts.gate.refuses(peerId)) this.#cut(peerId, 'the configuration keeps the peer away')
    }
    this.#parts.mesh.wake()
  }

  /** Ends every connection, as the keys under which they were made may be accepted no longer; those who still belong come back. */
  reconnect(): void {
    for (const connection of this.#parts.stack.getConnections()) connection.abort(new Error('the keys of the fleet have changed'))
  }

  /** Calls `listener` when a peer comes, goes or is banned; returns how to stop that. */
  onPeerChange(listener: PeerListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** Calls `listener` each time a peer is connected and has said what it speaks; returns how to stop that. */
  onPeer(listener: (peerId: string) => void): () => void {
    const { stack } = this.#parts
    const onIdentify = ({ detail }: { detail: { peerId: { toString(): string } } }): void => { listener(detail.peerId.toString()) }
    stack.addEventListener('peer:identify', onIdentify)
    return () => { stack.removeEventListener('peer:identify', onIdentify) }
  }

  /** Resolves once the peer is connected and has said what it speaks; rejects with the signal's reason. */
  async waitForPeer(peerId: string, { signal }: { signal: AbortSignal }): Promise<void> {
    const { stack } = this.#parts
    const { promise, resolve, reject } = Promise.withResolvers<undefined>()
    const check = (): void => { if (this.#agents.has(peerId) && stack.getConnections(peerIdFromString(peerId)).length > 0) resolve(undefined) }
    const onAbort = (): void => { reject(signal.reason as Error) }
    stack.addEventListener('peer:identify', check)
    signal.addEventListener('abort', onAbort)
    try {
      signal.throwIfAborted()
      check()
      await promise
    } finally {
      stack.removeEventListener('peer:identify', check)
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Puts limits into force; `uploadSlots`: NARs that are sent at once, the next asker is answered `busy`. */
  setRates(limits: RateLimits, uploadSlots: number): void {
    this.#paces.configure(limits)
    this.#narSlots.count = uploadSlots
  }

  /** What was received from a peer and sent to it; lives as long as the node. */
  trafficOf(peerId: string): Traffic {
    return this.#books.of(peerId)
  }

  /** What was received and sent, by protocol. */
  get traffic(): ReadonlyMap<string, ProtocolTotals> {
    return this.#books.totals()
  }

  /** What is being sent of which image. */
  get sending(): readonly Sending[] {
    return this.#books.sending
  }

  async open(peerId: string, protocol: string, { signal: caller }: { signal: AbortSignal | undefined }): Promise<OpenStream | 'busy'> {
    const signal = caller === undefined ? this.#stopping.signal : AbortSignal.any([caller, this.#stopping.signal])
    signal.throwIfAborted()
    const release = this.#slotsFor(peerId, protocol).take()
    if (release === undefined) return 'busy'
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
      const stream = await this.#parts.stack.dialProtocol(peerIdFromString(peerId), protocol, { signal: limit })
      stream.addEventListener('close', release)
      if (stream.timeline.close !== undefined) release()
      return { stream, signal, traffic: this.#books.open(peerId, protocol) }
    } catch (error) {
      release()
      signal.throwIfAborted()
      throw peerFailed(error, `reach peer ${peerId}`)
    }
  }

  #slotsFor(peerId: string, protocol: string): Slots {
    const key = `${peerId} ${protocol}`
    const slots = this.#outbound.get(key) ?? new Slots(MAX_OUTBOUND_STREAMS)
    this.#outbound.set(key, slots)
    return slots
  }

  async #handle(protocol: string, handler: StreamHandler): Promise<void> {
    const { stack, limits, logger } = this.#parts
    await stack.handle(protocol, async (stream, connection) => {
      const peerId = connection.remotePeer.toString()
      const release = limits.admit(peerId)
      if (release === undefined) {
        logger.debug('a peer asks for more than it may', { peerId, protocol })
        stream.abort(new Error('too many requests'))
        return
      }
      const serving = handler(stream, connection)
      this.#serving.add(serving)
      await serving.finally(release)
      this.#serving.delete(serving)
    }, { maxInboundStreams: MAX_INBOUND_STREAMS })
  }

  #tell(change: PeerChange): void {
    for (const listener of this.#listeners) listener(change)
  }

  #onConnection(connection: Connection): void {
    const { stack, logger } = this.#parts
    if (stack.getConnections(connection.remotePeer).length <= MAX_PEER_CONNECTIONS) return
    logger.debug('a peer opens more connections than it may', { peerId: connection.remotePeer.toString() })
    connection.abort(new Error('too many connections'))
  }

  #cut(peerId: string, reason: string): void {
    for (const connection of this.#parts.stack.getConnections(peerIdFromString(peerId))) connection.abort(new Error(reason))
  }

  #onIdentify({ peerId, agentVersion = '' }: IdentifyResult): void {
    this.#agents.set(peerId.toString(), agentVersion.slice(0, 200))
  }

  #describe(peerId: string, connections: readonly Connection[]): PeerInfo {
    const [first] = connections
    const { received, sent } = this.trafficOf(peerId)
    return {
      peerId,
      addresses: connections.map(({ remoteAddr }) => remoteAddr.toString()),
      direction: first?.direction ?? null,
      latencyMs: first?.rtt ?? null,
      agent: this.#agents.get(peerId) ?? null,
      connectedSince: first === undefined ? null : new Date(first.timeline.open),
      banned: this.#parts.bans.has(peerId),
      streams: connections.flatMap(({ streams }) => streams).filter(({ protocol }) => PROTOCOLS.includes(protocol)).length,
      received, sent,
    }
  }
}

/** libp2p says it in many lines, with stack traces; one of them has the cause. */
function startFailed(error: unknown, listen: readonly string[]): NarvikError {
  const [, cause = messageOf(error)] = /Error: (listen .*)/.exec(messageOf(error)) ?? []
  const inUse = cause.includes('EADDRINUSE')
  return new NarvikError(inUse ? 'in-use' : 'io-error', `Cannot listen on ${listen.join(', ')}: found ${cause}, needed free addresses of this host`, { cause: error })
}

function connectedTo(stack: Stack): ReadonlySet<string> {
  return new Set(stack.getConnections().map(({ remotePeer }) => remotePeer.toString()))
}

async function rememberPeer(stack: Stack, { id, multiaddrs }: Libp2pPeerInfo): Promise<void> {
  await stack.peerStore.merge(id, { multiaddrs: multiaddrs.slice(0, MAX_NAMED_ADDRESSES) })
}

async function delay(ms: number): Promise<void> {
  await new Promise(resolve => { setTimeout(resolve, ms).unref() })
}
