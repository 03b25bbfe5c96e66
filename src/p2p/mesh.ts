import type { Libp2p, PeerId } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { messageOf, NarvikError } from '../errors.ts'
import { DIAL_TIMEOUT_MS, FORGET_PEER_MS, MAX_MESH_DIALS, MAX_MESH_PEERS, MAX_MESH_TARGETS, REDIAL_MAX_MS, REDIAL_MIN_MS } from '../limits.ts'
import type { Logger } from '../log.ts'

export interface MeshComponents {
  readonly libp2p: Pick<Libp2p, 'dial' | 'getConnections' | 'addEventListener' | 'peerId' | 'peerStore'>
  readonly logger: Logger
  readonly isBanned: (peerId: string) => boolean
}

export interface MeshInit {
  readonly bootstrap: readonly Multiaddr[]
  readonly redialMinMs?: number | undefined
  readonly redialMaxMs?: number | undefined
  readonly random?: (() => number) | undefined
}

/** Somebody to be connected to. */
interface Target {
  readonly key: string
  readonly dial: PeerId | Multiaddr
  /** Bootstrap peers are dialled for ever, whatever the number of connections. */
  readonly bootstrap: boolean
  /** Known from the address, or after the first connection. */
  peerId: string | undefined
  /** Milliseconds of the last wait. */
  waitMs: number
  /** When to dial again, when the peer came, and when it was last there: all of the monotonic clock. */
  dueAt: number
  connectedAt: number
  seenAt: number
  /** Whether it was ever there: who was has the key of the fleet, and is not made up. */
  met: boolean
  dialling: boolean
}

/**
 * Keeps this host connected: to the bootstrap peers, and to every peer that it hears of (mDNS, the DHT, who dials in) as long as there
 * are few. Who does not answer, or goes, is dialled again after a wait that doubles up to a cap. libp2p itself dials nobody.
 */
export class Mesh {
  readonly #components: MeshComponents
  readonly #minMs: number
  readonly #maxMs: number
  readonly #random: () => number
  readonly #targets = new Map<string, Target>()
  readonly #stopping = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(components: MeshComponents, { bootstrap, redialMinMs = REDIAL_MIN_MS, redialMaxMs = REDIAL_MAX_MS, random = Math.random }: MeshInit) {
    this.#components = components
    this.#minMs = redialMinMs
    this.#maxMs = redialMaxMs
    this.#random = random
    for (const address of bootstrap) this.#add(address.toString(), address, peerIdIn(address), true)
  }

  start(): void {
    const { libp2p } = this.#components
    libp2p.addEventListener('peer:discovery', ({ detail: { id } }) => { this.hearOf(id) })
    libp2p.addEventListener('peer:connect', ({ detail: id }) => { this.#onConnected(id) })
    libp2p.addEventListener('peer:disconnect', ({ detail: id }) => { this.#onLost(id.toString()) })
    this.#schedule()
  }

  /** Dials again at once whoever was waited for: something has changed that may have kept them away. */
  wake(): void {
    for (const target of this.#targets.values()) {
      target.waitMs = 0
      target.dueAt = performance.now()
    }
    this.#schedule()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#stopping.abort(new NarvikError('interrupted', 'Cannot dial: found the daemon stopping, needed it running'))
  }

  /** There may be such a peer: it is dialled in time, and forgotten where it never answers or where there are too many. */
  hearOf(id: PeerId): void {
    const peerId = id.toString()
    if (peerId === this.#components.libp2p.peerId.toString()) return
    for (const target of this.#targets.values()) {
      if (target.peerId === peerId) return
    }
    this.#makeRoom()
    this.#add(peerId, id, peerId, false)
    this.#schedule()
  }

  /** Forgets one that was never met, by lot, so that nobody who makes up many decides which; where all were, who was away for longest. */
  #makeRoom(): void {
    if (this.#targets.size < MAX_MESH_TARGETS) return
    const connected = this.#connected()
    const absent = [...this.#targets.values()].filter(target => !target.bootstrap && !target.dialling && !isConnected(target, connected))
    const strangers = absent.filter(({ met }) => !met)
    const longest = absent.toSorted((a, b) => a.seenAt - b.seenAt)[0]
    const leaves = strangers[Math.floor(this.#random() * strangers.length)] ?? longest
    if (leaves !== undefined) this.#forget(leaves)
  }

  #onConnected(id: PeerId): void {
    this.hearOf(id)
    for (const target of this.#targets.values()) {
      if (target.peerId !== id.toString()) continue
      target.connectedAt = performance.now()
      target.met = true
    }
  }

  #onLost(peerId: string): void {
    for (const target of this.#targets.values()) {
      if (target.peerId !== peerId) continue
      const now = performance.now()
      // Who lets us in and throws us out at once is not dialled as often as that.
      if (now - target.connectedAt > this.#maxMs) target.waitMs = 0
      target.seenAt = now
      this.#wait(target)
    }
    this.#schedule()
  }

  #add(key: string, dial: PeerId | Multiaddr, peerId: string | undefined, bootstrap: boolean): void {
    const now = performance.now()
    this.#targets.set(key, { key, dial, bootstrap, peerId, waitMs: 0, dueAt: now, connectedAt: now, seenAt: now, met: false, dialling: false })
  }

  /** Half of each wait is random, so that a fleet that lost its bootstrap peer doesn't come back in one moment. */
  #wait(target: Target): void {
    target.waitMs = Math.min(this.#maxMs, Math.max(this.#minMs, target.waitMs * 2))
    target.dueAt = performance.now() + target.waitMs * (0.5 + this.#random() / 2)
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#stopping.signal.aborted) return
    const connected = this.#connected()
    const isFull = this.#dials() >= MAX_MESH_DIALS
    const waiting = [...this.#targets.values()].filter(target => !target.dialling && (target.bootstrap || !isFull) && !isConnected(target, connected))
    // Each dial that ends looks again.
    if (waiting.length === 0) return
    const next = Math.min(...waiting.map(({ dueAt }) => dueAt))
    this.#timer = setTimeout(() => { this.#dialDue() }, Math.max(0, next - performance.now())).unref()
  }

  #dialDue(): void {
    const now = performance.now()
    const connected = this.#connected()
    // Those that were met before go first, and then whoever waits for longest: made-up ones are many, and each takes the time for a dial.
    const due = [...this.#targets.values()].filter(target => !target.dialling && target.dueAt <= now && !isConnected(target, connected))
    for (const target of due.toSorted((a, b) => Number(b.met) - Number(a.met) || a.dueAt - b.dueAt)) {
      if (!target.bootstrap && this.#dials() >= MAX_MESH_DIALS) continue
      if (!target.bootstrap && now - target.seenAt > FORGET_PEER_MS) this.#forget(target)
      else if (this.#isWanted(target, connected.size)) void this.#dial(target)
      else this.#wait(target)
    }
    this.#schedule()
  }

  /** Peers that were heard of and are being dialled. */
  #dials(): number {
    return [...this.#targets.values()].filter(({ dialling, bootstrap }) => dialling && !bootstrap).length
  }

  #isWanted({ bootstrap, peerId }: Target, connections: number): boolean {
    if (peerId !== undefined && this.#components.isBanned(peerId)) return false
    return bootstrap || connections < MAX_MESH_PEERS
  }

  async #dial(target: Target): Promise<void> {
    const { libp2p, logger } = this.#components
    target.dialling = true
    try {
      const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
      const connection = await libp2p.dial(target.dial, { signal })
      target.peerId = connection.remotePeer.toString()
      logger.debug('connected to a peer', { peerId: target.peerId })
    } catch (error) {
      const first = target.waitMs === 0
      // A bootstrap peer is somebody's intention; that it doesn't answer is worth a line, once.
      const level = target.bootstrap && first && !this.#stopping.signal.aborted ? 'warn' : 'debug'
      logger[level]('cannot reach a peer; trying again', { peer: target.key, reason: reasonOf(error) })
    } finally {
      target.dialling = false
      // Also after success: a connection that is refused at the other end is lost without a word.
      this.#wait(target)
      this.#schedule()
    }
  }

  #forget(target: Target): void {
    this.#targets.delete(target.key)
    if (target.dial instanceof Object && 'toMultihash' in target.dial) {
      this.#components.libp2p.peerStore.delete(target.dial).catch(() => undefined)
    }
  }

  #connected(): ReadonlySet<string> {
    return new Set(this.#components.libp2p.getConnections().map(({ remotePeer }) => remotePeer.toString()))
  }
}

/** What libp2p has in plain sight, but not in its type. */
interface Redialling {
  readonly components: { readonly connectionManager: { readonly reconnectQueue: { maybeReconnect: (peerId: PeerId) => Promise<void> } } }
}

/**
 * Has libp2p dial nobody that is lost: the mesh does, with a wait. libp2p dials those that the DHT has tagged at once, and a host that is let in and thrown
 * out, as one that is banned is, would be back two hundred times a second.
 */
export function leaveRedialling(libp2p: Libp2p): void {
  (libp2p as unknown as Redialling).components.connectionManager.reconnectQueue.maybeReconnect = () => Promise.resolve()
}

/** What a person can act on: a handshake fails where the fleet keys differ, and says so in the words of its cipher. */
function reasonOf(error: unknown): string {
  const failedHandshake = error instanceof Error && /handshake|EncryptionFailed/i.test(`${error.name} ${error.message}`)
  return failedHandshake ? `the handshake failed, as it does where fleet keys differ (${messageOf(error)})` : messageOf(error)
}

function isConnected({ peerId }: Target, connected: ReadonlySet<string>): boolean {
  return peerId !== undefined && connected.has(peerId)
}

/** The peer id at the end of an address, where it has one. */
function peerIdIn(address: Multiaddr): string | undefined {
  return address.getComponents().findLast(({ name }) => name === 'p2p')?.value
}

/** @throws NarvikError `invalid-config` where a text is no multiaddr. */
export function parseBootstrap(addresses: readonly string[]): Multiaddr[] {
  return addresses.map(address => {
    try {
      return multiaddr(address)
    } catch (error) {
      throw new NarvikError('invalid-config', `Cannot use the bootstrap peer ${address}: found no multiaddr, needed one like /ip4/10.0.0.1/tcp/4411/p2p/12D3Koo…`, { cause: error })
    }
  })
}
