import type { SelectFn, ValidateFn } from '@libp2p/kad-dht'
import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { CLOCK_SKEW_MS, MAX_KNOWN_RECORDS } from '../limits.ts'
import { type ImageRecord, recordKey, verifyRecord } from './record.ts'

interface Entry {
  readonly record: ImageRecord
  readonly value: Uint8Array
}

/**
 * The newest proven record of each key. The DHT itself lets any valid record overwrite a newer one, so a copy of an old
 * announcement could undo a withdrawal: an older record than one that was seen is refused here.
 */
export class RecordBook {
  readonly #now: () => number
  readonly #max: number
  readonly #entries = new Map<string, Entry>()

  constructor({ now = Date.now, maxRecords = MAX_KNOWN_RECORDS }: { now?: (() => number) | undefined, maxRecords?: number } = {}) {
    this.#now = now
    this.#max = maxRecords
  }

  /**
   * Checks a record and remembers it.
   * @throws NarvikError `refused`: see `verifyRecord`; also where a newer record, or another with the same number, was seen.
   */
  async accept(key: Uint8Array, value: Uint8Array): Promise<ImageRecord> {
    const id = Buffer.from(key).toString('latin1')
    const known = this.#entries.get(id)
    // The same bytes come back many times; only their age can have changed, and that is looked at when they are used.
    if (known !== undefined && Buffer.compare(known.value, value) === 0 && known.record.expires > this.#now()) return known.record
    const { record } = await verifyRecord(key, value, this.#now())
    const newest = this.#entries.get(id)
    if (newest !== undefined && newest.record.seq >= record.seq && Buffer.compare(newest.value, value) !== 0) {
      throw new NarvikError('refused', `Cannot accept an image record: found sequence number ${record.seq}, needed one above ${newest.record.seq}`)
    }
    this.#keep(id, { record, value: Uint8Array.from(value) })
    return record
  }

  /** The newest record that was seen and has not expired. */
  newest(peerId: string, narHash: NarHash): ImageRecord | undefined {
    const entry = this.#entries.get(Buffer.from(recordKey(peerId, narHash)).toString('latin1'))
    return entry !== undefined && entry.record.expires > this.#now() ? entry.record : undefined
  }

  /** For the DHT: accepts or throws. */
  readonly validate: ValidateFn = async (key, value) => {
    await this.accept(key, value)
  }

  /** For the DHT: the index of the newest of records that were accepted before. */
  readonly select: SelectFn = async (key, values) => {
    const seqs = await Promise.all(values.map(async value => {
      const { record } = await verifyRecord(key, value, this.#now())
      return record.seq
    }))
    return seqs.indexOf(Math.max(...seqs))
  }

  #keep(id: string, entry: Entry): void {
    this.#entries.delete(id)
    if (this.#entries.size >= this.#max) this.#dropExpired()
    if (this.#entries.size >= this.#max) throw new NarvikError('refused', `Cannot accept an image record: found ${this.#max} live ones, needed fewer`)
    this.#entries.set(id, entry)
  }

  #dropExpired(): void {
    // Until then an older record may still be offered.
    const past = this.#now() - CLOCK_SKEW_MS
    for (const [id, { record }] of this.#entries) {
      if (record.expires <= past) this.#entries.delete(id)
    }
  }
}
