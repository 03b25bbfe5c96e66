import type { PeerId, PeerInfo, PrivateKey } from '@libp2p/interface'
import type { KadDHT, QueryEvent } from '@libp2p/kad-dht'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { create as createDigest } from 'multiformats/hashes/digest'
import { NarvikError, messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { ANNOUNCE_CONCURRENCY, CLOCK_SKEW_MS, FIND_TIMEOUT_MS, MAX_NAMED_ADDRESSES, MAX_NAMED_PROVIDERS, RECORD_LIFETIME_MS, RECORD_LOOKUP_MS } from '../limits.ts'
import type { Logger } from '../log.ts'
import { FairQueue } from './fair-queue.ts'
import { drawSome } from './lots.ts'
import { type ImageRecord, MAX_RECORD_LIFETIME_MS, recordKey, signRecord } from './record.ts'
import type { RecordBook } from './record-book.ts'
import type { Announcement, ContentRouter, Provider } from './router.ts'
import { unordered } from './unordered.ts'

/** Multihash code of sha2-256, which a NAR hash is. */
const SHA2_256 = 0x12
/** Copies of a record after which the newest of them is believed to be the newest there is. */
const ENOUGH_COPIES = 3

export interface DhtRouterComponents {
  readonly dht: KadDHT
  /** The DHT's peers; tells of each that comes. */
  readonly routingTable: { readonly size: number, addEventListener(type: 'peer:add', listener: () => void): void }
  readonly peerId: PeerId
  readonly privateKey: PrivateKey
  readonly book: RecordBook
  readonly logger: Logger
  /** Keeps a provider's addresses for the dial. */
  readonly remember: (provider: PeerInfo) => Promise<void>
  readonly isBanned: (peerId: string) => boolean
  /** Ids of the peers that this host is connected to. */
  readonly connected: () => ReadonlySet<string>
}

export interface DhtRouterInit {
  readonly now?: (() => number) | undefined
  readonly lifetimeMs?: number | undefined
  /** Milliseconds after a new peer before it is told of what is announced; many come at once. */
  readonly settleMs?: number | undefined
}

interface Held {
  readonly announcement: Announcement
  /** Milliseconds since 1970. */
  announcedAt: number
  reached: number
}

/** Announces and finds images through the fleet's DHT. Runs from `start` to `stop`. */
export class DhtRouter implements ContentRouter {
  readonly #components: DhtRouterComponents
  readonly #now: () => number
  readonly #lifetimeMs: number
  readonly #settleMs: number
  readonly #held = new Map<string, Held>()
  /** The last task of each image: announcements and withdrawals of one image happen one after another. */
  readonly #tails = new Map<string, Promise<unknown>>()
  readonly #stopping = new AbortController()
  #lastSeq = 0
  #renewTimer: NodeJS.Timeout | undefined
  #settleTimer: NodeJS.Timeout | undefined
  #renewing: Promise<void> = Promise.resolve()

  constructor(components: DhtRouterComponents, { now = Date.now, lifetimeMs = RECORD_LIFETIME_MS, settleMs = 300 }: DhtRouterInit = {}) {
    this.#components = components
    this.#now = now
    this.#lifetimeMs = lifetimeMs
    this.#settleMs = settleMs
  }

  start(): void {
    this.#renewTimer = setInterval(() => { this.#renew(({ announcedAt }) => Math.abs(this.#now() - announcedAt) >= this.#lifetimeMs / 2) }, this.#lifetimeMs / 60)
    this.#renewTimer.unref()
    // Nobody tells a new peer of what was announced before it came.
    this.#components.routingTable.addEventListener('peer:add', () => {
      this.#settleTimer ??= setTimeout(() => {
        this.#settleTimer = undefined
        const most = Math.min(this.#components.dht.k, this.#components.routingTable.size)
        this.#renew(({ reached }) => reached < most)
      }, this.#settleMs).unref()
    })
  }

  async stop(): Promise<void> {
    clearInterval(this.#renewTimer)
    clearTimeout(this.#settleTimer)
    this.#stopping.abort(new NarvikError('interrupted', 'Cannot use the network: found the daemon stopping, needed it running'))
    await Promise.allSettled([this.#renewing, ...this.#tails.values()])
  }

  async announce(announcement: Announcement, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<{ reached: number }> {
    const id = announcement.narHash.toHex()
    const held: Held = { announcement, announcedAt: this.#now(), reached: 0 }
    this.#held.set(id, held)
    await this.#inTurn(id, async () => { await this.#publish(held, signal) })
    return { reached: held.reached }
  }

  async withdraw(narHash: NarHash, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const id = narHash.toHex()
    if (!this.#held.delete(id)) return
    await this.#inTurn(id, async () => {
      if (this.#held.has(id)) return
      await this.#components.dht.cancelReprovide(cidOf(narHash))
      await this.#put({ version: 1, status: 'withdrawn', narHash, seq: this.#nextSeq(), expires: this.#now() + MAX_RECORD_LIFETIME_MS }, signal)
    })
  }

  async *find(narHash: NarHash, { signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<Provider> {
    const left = new AbortController()
    const limit = AbortSignal.any([left.signal, this.#limit(signal, FIND_TIMEOUT_MS)])
    try {
      for await (const provider of unordered(this.#providers(narHash, limit), MAX_NAMED_PROVIDERS, info => this.#describe(info, narHash, limit))) {
        yield provider
      }
    } catch (error) {
      if (!limit.aborted) throw error
    } finally {
      left.abort()
    }
    signal?.throwIfAborted()
    this.#stopping.signal.throwIfAborted()
  }

  /** Those that each peer names, in turns: nobody who makes up many keeps what others name out of the time for a look-up. */
  async *#providers(narHash: NarHash, signal: AbortSignal): AsyncGenerator<PeerInfo> {
    const turns = new FairQueue<PeerInfo>()
    this.#hearProviders(narHash, signal, turns).then(() => { turns.end() }, (error: unknown) => { turns.end(error) })
    const seen = new Set([this.#components.peerId.toString()])
    for await (const info of turns) {
      signal.throwIfAborted()
      if (seen.has(info.id.toString())) continue
      // Only now: it may have been waiting behind what one peer makes up, and be the first that another one names.
      seen.add(info.id.toString())
      yield info
    }
  }

  async #hearProviders(narHash: NarHash, signal: AbortSignal, turns: FairQueue<PeerInfo>): Promise<void> {
    const { dht, isBanned, connected } = this.#components
    for await (const event of dht.findProviders(cidOf(narHash), { signal })) {
      if (event.name !== 'PROVIDER') continue
      const here = connected()
      const isHere = ({ id }: PeerInfo): boolean => here.has(id.toString())
      // Who is connected is not made up. Of the others other ones each time, so that nobody can bury who is honest below those it makes up.
      const drawn = [...drawSome(event.providers.filter(isHere), MAX_NAMED_PROVIDERS), ...drawSome(event.providers.filter(info => !isHere(info)), MAX_NAMED_PROVIDERS)]
      for (const { id, multiaddrs } of drawn) {
        if (isBanned(id.toString())) continue
        turns.add(event.from.toString(), { id, multiaddrs: multiaddrs.slice(0, MAX_NAMED_ADDRESSES) })
      }
    }
  }

  /** The provider with what it signed; undefined where it has withdrawn. */
  async #describe(provider: PeerInfo, narHash: NarHash, signal: AbortSignal): Promise<Provider | undefined> {
    const { book, remember } = this.#components
    const peerId = provider.id.toString()
    // A record that is known is news enough: whoever has withdrawn since says so when it is asked.
    const isKnown = book.newest(peerId, narHash)?.status === 'held'
    await Promise.all([isKnown ? undefined : this.#lookUp(peerId, narHash, signal), remember(provider)])
    const record = book.newest(peerId, narHash)
    if (record?.status === 'withdrawn') return undefined
    const found = { peerId, addresses: [...new Set(provider.multiaddrs.map(String))] }
    if (record === undefined) return found
    return { ...found, record: { narHash, narSize: record.narSize, manifestDigest: record.manifestDigest } }
  }

  /** Lets the book see what the fleet has of a peer's record. */
  async #lookUp(peerId: string, narHash: NarHash, signal: AbortSignal): Promise<void> {
    let copies = 0
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(RECORD_LOOKUP_MS)])
      for await (const event of this.#components.dht.get(recordKey(peerId, narHash), { signal: limit })) {
        if (event.name === 'PEER_RESPONSE' && event.record !== undefined) copies += 1
        if (copies >= ENOUGH_COPIES) break
      }
    } catch (error) {
      // The provider may still answer; what it says is checked anyway.
      this.#components.logger.debug('looked up an image record in vain', { peerId, reason: messageOf(error) })
    }
  }

  async #publish(held: Held, signal: AbortSignal | undefined): Promise<void> {
    const { announcement: { narHash, narSize, manifestDigest } } = held
    if (this.#held.get(narHash.toHex()) !== held) return
    const now = this.#now()
    held.announcedAt = now
    // The record goes first: an old withdrawal must not hide the new provider.
    await this.#put({ version: 1, status: 'held', narHash, narSize, manifestDigest, seq: this.#nextSeq(), expires: now + this.#lifetimeMs }, signal)
    const limit = this.#limit(signal, FIND_TIMEOUT_MS)
    const reached = new Set<string>()
    await this.#drain(this.#components.dht.provide(cidOf(narHash), { signal: limit }), limit, event => {
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'ADD_PROVIDER') reached.add(event.from.toString())
    })
    held.reached = reached.size
    signal?.throwIfAborted()
  }

  async #put(record: ImageRecord, signal: AbortSignal | undefined): Promise<void> {
    const { dht, book, peerId, privateKey } = this.#components
    const key = recordKey(peerId.toString(), record.narHash)
    const value = await signRecord(key, record, privateKey)
    await book.accept(key, value)
    const limit = this.#limit(signal, FIND_TIMEOUT_MS)
    await this.#drain(dht.put(key, value, { signal: limit }), limit, () => undefined)
  }

  /** Takes a query's events to its end; that some peers fail, or that the time is up, is part of it. */
  async #drain(events: AsyncIterable<QueryEvent>, limit: AbortSignal, onEvent: (event: QueryEvent) => void): Promise<void> {
    try {
      for await (const event of events) onEvent(event)
    } catch (error) {
      if (!limit.aborted) this.#components.logger.warn('a query of the DHT failed', { reason: messageOf(error) })
    }
  }

  #renew(isDue: (held: Held) => boolean): void {
    const due = [...this.#held.values()].filter(isDue)
    const count = due.length
    if (count === 0) return
    this.#renewing = this.#renewing.then(async () => {
      const workers = Array.from({ length: ANNOUNCE_CONCURRENCY }, async () => {
        for (let held = due.pop(); held !== undefined && !this.#stopping.signal.aborted; held = due.pop()) await this.#renewOne(held)
      })
      await Promise.all(workers)
      this.#components.logger.debug('renewed announcements', { count })
    })
  }

  async #renewOne(held: Held): Promise<void> {
    try {
      await this.#inTurn(held.announcement.narHash.toHex(), async () => { await this.#publish(held, undefined) })
    } catch (error) {
      this.#components.logger.warn('cannot renew an announcement', { narHash: held.announcement.narHash.toSri(), reason: messageOf(error) })
    }
  }

  async #inTurn(id: string, task: () => Promise<void>): Promise<void> {
    const turn = (this.#tails.get(id) ?? Promise.resolve()).then(task, task)
    this.#tails.set(id, turn)
    try {
      await turn
    } finally {
      if (this.#tails.get(id) === turn) this.#tails.delete(id)
    }
  }

  #nextSeq(): number {
    const now = this.#now()
    // What was numbered while the clock was ahead is refused by everybody, and so would be what comes after it.
    this.#lastSeq = this.#lastSeq > now + CLOCK_SKEW_MS ? now : Math.max(this.#lastSeq + 1, now)
    return this.#lastSeq
  }

  #limit(signal: AbortSignal | undefined, timeoutMs: number): AbortSignal {
    const signals = [this.#stopping.signal, AbortSignal.timeout(timeoutMs)]
    return AbortSignal.any(signal === undefined ? signals : [...signals, signal])
  }
}

/** The address of an image in the DHT: the NAR hash is the multihash, so nothing is hashed again. */
export function cidOf(narHash: NarHash): CID {
  return CID.createV1(raw.code, createDigest(SHA2_256, narHash.bytes))
}
