import { Record as DhtRecord } from '@libp2p/kad-dht'
import { messageOf } from '../errors.ts'
import { CLOCK_SKEW_MS, RECORD_LIFETIME_MS } from '../limits.ts'
import type { Logger } from '../log.ts'
import { MAX_RECORD_LIFETIME_MS } from './record.ts'

/** Where the DHT keeps the values of others; libp2p's datastore has all of it. */
export interface RecordStore<Key> {
  query(query: { prefix: string }): AsyncIterable<{ readonly key: Key, readonly value: Uint8Array }>
  delete(key: Key): unknown
}

/**
 * Removes the records that nobody would accept any more: the DHT itself never does, and each image that the fleet ever had would
 * leave some. Runs from `start` to `stop`.
 */
export class RecordSweep<Key> {
  readonly #store: RecordStore<Key>
  readonly #logger: Logger
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined

  constructor({ store, logger }: { store: RecordStore<Key>, logger: Logger }, { now = Date.now }: { now?: (() => number) | undefined } = {}) {
    this.#store = store
    this.#logger = logger
    this.#now = now
  }

  start(): void {
    this.#timer = setInterval(() => { void this.sweep() }, RECORD_LIFETIME_MS / 2).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async sweep(): Promise<void> {
    const past = this.#now() - MAX_RECORD_LIFETIME_MS - 2 * CLOCK_SKEW_MS
    try {
      for await (const { key, value } of this.#store.query({ prefix: '/dht/record' })) {
        if (DhtRecord.deserialize(value).timeReceived.getTime() < past) await this.#store.delete(key)
      }
    } catch (error) {
      this.#logger.warn('cannot remove old records of the DHT', { reason: messageOf(error) })
    }
  }
}
