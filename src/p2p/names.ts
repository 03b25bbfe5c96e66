import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import type { KadDHT } from '@libp2p/kad-dht'
import { messageOf, NarvikError } from '../errors.ts'
import { checkNameTimes, nameKey, nameOfKey, type NameRecord, publisherId, readNameRecord, refuseName } from '../image/name-record.ts'
import { FIND_TIMEOUT_MS, MAX_KNOWN_REFUSALS, NAME_LOOKUP_MS, RECORD_LIFETIME_MS } from '../limits.ts'
import type { Logger } from '../log.ts'
import { type RecordBookInit, SequencedBook } from './record-book.ts'

/** A proven record, with its bytes. */
export interface PublishedName {
  readonly record: NameRecord
  readonly value: Uint8Array
}

/** Why a record of a name was not taken. */
export interface NameRefusal {
  /** Its key in the DHT. */
  readonly key: Uint8Array
  /** Milliseconds since 1970. */
  readonly at: number
  readonly reason: string
  /** What the publisher has signed, where the only thing wrong with it is that its time was over; also where something else was refused since. */
  readonly expired: NameRecord | undefined
}

/** What publishers have named. */
export interface NameDirectory {
  /**
   * Proves a record and remembers it.
   * @throws NarvikError `refused` where it is forged, expired, malformed, or older than one that was seen.
   */
  accept(value: Uint8Array): Promise<NameRecord>
  /** Tells the fleet of an accepted record, and again and again until it expires, or a newer one of the name is kept. */
  keep(published: PublishedName): Promise<void>
  /** The newest live record that the fleet has of a name; `publisher` is a public key in hex. */
  find(publisher: string, name: string, options: { signal?: AbortSignal | undefined }): Promise<PublishedName | undefined>
  /** The newest record of each name that this host has heard of, whoever published it. */
  known(): PublishedName[]
  /** The last record of each name that was refused, the latest last; old ones are forgotten. */
  refusals(): NameRefusal[]
}

/**
 * The record in `value`, once it is proven to be its publisher's, to belong under its key and to be of this time.
 * @throws NarvikError `refused`.
 */
export async function verifyNameRecord(key: Uint8Array, value: Uint8Array, now: number): Promise<NameRecord> {
  const record = await proveNameRecord(key, value)
  checkNameTimes(record, now)
  return record
}

/** As `verifyNameRecord`, for a record of any time. */
async function proveNameRecord(key: Uint8Array, value: Uint8Array): Promise<NameRecord> {
  const { record, key: own, signature, signed } = readNameRecord(value)
  // Each name of a publisher has one key: no other text form of it.
  if (Buffer.compare(own, key) !== 0) refuseName(`a record of ${record.name}`, 'one that belongs under its key')
  if (!await publicKeyFromRaw(Buffer.from(publisherId(record.publisher), 'hex')).verify(signed, signature)) refuseName('a signature that does not verify', `one of ${record.publisher}`)
  return record
}

/** The newest proven record of each name. */
export class NameBook extends SequencedBook<NameRecord> {
  readonly #refusals = new Map<string, NameRefusal>()

  constructor(init: RecordBookInit = {}) {
    super(verifyNameRecord, init)
  }

  override async accept(key: Uint8Array, value: Uint8Array): Promise<NameRecord> {
    try {
      return await super.accept(key, value)
    } catch (error) {
      this.#note(key, messageOf(error), await this.#expired(key, value))
      throw error
    }
  }

  /** The record, where it is its publisher's and of a time that is over. */
  async #expired(key: Uint8Array, value: Uint8Array): Promise<NameRecord | undefined> {
    try {
      // Most that is refused is of this time, and its signature was looked at already.
      return readNameRecord(value).record.expires <= this.now() ? await proveNameRecord(key, value) : undefined
    } catch {
      return undefined
    }
  }

  known(): PublishedName[] {
    return [...this.entries()]
  }

  refusals(): NameRefusal[] {
    return [...this.#refusals.values()]
  }

  /** Whoever makes up names has others forgotten, and nothing else. */
  #note(key: Uint8Array, reason: string, expired: NameRecord | undefined): void {
    if (nameOfKey(key) === undefined) return
    const id = Buffer.from(key).toString('latin1')
    const before = this.#refusals.get(id)?.expired
    this.#refusals.delete(id)
    this.#refusals.set(id, { key: Uint8Array.from(key), at: this.now(), reason, expired: expired ?? before })
    const [oldest] = this.#refusals.keys()
    if (this.#refusals.size > MAX_KNOWN_REFUSALS && oldest !== undefined) this.#refusals.delete(oldest)
  }

  newest(publisher: string, name: string): PublishedName | undefined {
    return this.live(nameKey(publisher, name))
  }
}

/** Copies of a record after which the newest of them is believed to be the newest there is. */
const ENOUGH_COPIES = 3
/** Milliseconds after a new peer before it is told of the names; many come at once. */
const SETTLE_MS = 500

export interface DhtNamesComponents {
  readonly dht: Pick<KadDHT, 'get' | 'put'>
  readonly table: { addEventListener(type: 'peer:add', listener: () => void): void }
  readonly book: NameBook
  readonly logger: Logger
}

/** The names in the fleet's DHT. Runs from `start` to `stop`. */
export class DhtNames implements NameDirectory {
  readonly #components: DhtNamesComponents
  readonly #now: () => number
  readonly #kept = new Map<string, PublishedName>()
  readonly #stopping = new AbortController()
  #renewTimer: NodeJS.Timeout | undefined
  #settleTimer: NodeJS.Timeout | undefined
  #renewing: Promise<void> = Promise.resolve()

  constructor(components: DhtNamesComponents, { now = Date.now }: { now?: (() => number) | undefined } = {}) {
    this.#components = components
    this.#now = now
  }

  start(): void {
    this.#renewTimer = setInterval(() => { this.#renew() }, RECORD_LIFETIME_MS / 2).unref()
    // Nobody tells a new peer of what was published before it came.
    this.#components.table.addEventListener('peer:add', () => {
      this.#settleTimer ??= setTimeout(() => {
        this.#settleTimer = undefined
        this.#renew()
      }, SETTLE_MS).unref()
    })
  }

  async stop(): Promise<void> {
    clearInterval(this.#renewTimer)
    clearTimeout(this.#settleTimer)
    this.#stopping.abort(new NarvikError('interrupted', 'Cannot use the network: found the daemon stopping, needed it running'))
    await this.#renewing
  }

  accept(value: Uint8Array): Promise<NameRecord> {
    return this.#components.book.accept(readNameRecord(value).key, value)
  }

  async keep(published: PublishedName): Promise<void> {
    this.#kept.set(idOf(published), published)
    await this.#put(published)
  }

  async find(publisher: string, name: string, { signal }: { signal?: AbortSignal | undefined }): Promise<PublishedName | undefined> {
    const { dht, book, logger } = this.#components
    let copies = 0
    try {
      const limit = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(NAME_LOOKUP_MS), ...signal === undefined ? [] : [signal]])
      for await (const event of dht.get(nameKey(publisher, name), { signal: limit })) {
        if (event.name === 'PEER_RESPONSE' && event.record !== undefined) copies += 1
        if (copies >= ENOUGH_COPIES) break
      }
    } catch (error) {
      signal?.throwIfAborted()
      logger.debug('looked up a published name in vain', { name, reason: messageOf(error) })
    }
    // Every copy went through the book, which has refused what is forged or old.
    return book.newest(publisher, name)
  }

  known(): PublishedName[] {
    return this.#components.book.known()
  }

  refusals(): NameRefusal[] {
    return this.#components.book.refusals()
  }

  #renew(): void {
    this.#renewing = this.#renewing.then(async () => {
      for (const published of this.#kept.values()) {
        // One that has expired is passed over and not forgotten: the clock may be wrong.
        if (!this.#stopping.signal.aborted && published.record.expires > this.#now()) await this.#put(published)
      }
    })
  }

  async #put({ record, value }: PublishedName): Promise<void> {
    const { dht, logger } = this.#components
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(FIND_TIMEOUT_MS)])
    try {
      const events = dht.put(nameKey(publisherId(record.publisher), record.name), value, { signal })[Symbol.asyncIterator]()
      while ((await events.next()).done !== true) signal.throwIfAborted()
      logger.debug('told the fleet of a published name', { name: record.name, seq: record.seq })
    } catch (error) {
      // A peer that has a newer one refuses it; who comes later is told at the next renewal.
      if (!signal.aborted) logger.debug('a published name was not taken', { name: record.name, reason: messageOf(error) })
    }
  }
}

function idOf({ record }: PublishedName): string {
  return `${publisherId(record.publisher)}/${record.name}`
}
