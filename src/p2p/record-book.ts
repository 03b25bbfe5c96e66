import type { SelectFn, ValidateFn } from '@libp2p/kad-dht'
import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { CLOCK_SKEW_MS, MAX_KNOWN_RECORDS, MAX_PEER_RECORDS, RECORD_LIFETIME_MS } from '../limits.ts'
import { type ImageRecord, recordKey, verifyRecord } from './record.ts'

/** What every signed record has. */
interface Sequenced {
  readonly seq: number
  /** Milliseconds since 1970. */
  readonly expires: number
}

interface Entry<Record> {
  readonly record: Record
  readonly value: Uint8Array
  /** When it came for the last time; milliseconds since 1970. */
  seen: number
}

export interface RecordBookInit {
  readonly now?: (() => number) | undefined
  readonly maxRecords?: number
  /** Records of one owner. */
  readonly maxOwned?: number
}

/**
 * The newest proven record of each key. The DHT itself lets any valid record overwrite a newer one, so a copy of an old
 * announcement could undo a withdrawal: an older record than one that was seen is refused here.
 */
export class SequencedBook<Record extends Sequenced> {
  protected readonly now: () => number
  readonly #verify: (key: Uint8Array, value: Uint8Array, now: number) => Promise<Record>
  readonly #max: number
  readonly #maxOwned: number
  readonly #entries = new Map<string, Entry<Record>>()
  readonly #owned = new Map<string, number>()

  /** `verify` answers with the record in `value`, once it is proven to be its key's owner's and of this time, and rejects otherwise. */
  constructor(verify: (key: Uint8Array, value: Uint8Array, now: number) => Promise<Record>, { now = Date.now, maxRecords = MAX_KNOWN_RECORDS, maxOwned = MAX_PEER_RECORDS }: RecordBookInit = {}) {
    this.now = now
    this.#verify = verify
    this.#max = maxRecords
    this.#maxOwned = maxOwned
  }

  /**
   * Checks a record and remembers it.
   * @throws NarvikError `refused`: see `verify`; also where a newer record, or another with the same number, was seen.
   */
  async accept(key: Uint8Array, value: Uint8Array): Promise<Record> {
    const id = Buffer.from(key).toString('latin1')
    const known = this.#entries.get(id)
    // The same bytes come back many times; only their age can have changed, and that is looked at when they are used.
    if (known !== undefined && Buffer.compare(known.value, value) === 0 && known.record.expires > this.now()) {
      known.seen = this.now()
      return known.record
    }
    const record = await this.#verify(key, value, this.now())
    const newest = this.#entries.get(id)
    if (newest !== undefined && this.binds(newest.record) && newest.record.seq >= record.seq && Buffer.compare(newest.value, value) !== 0) {
      throw new NarvikError('refused', `Cannot accept a record: found sequence number ${record.seq}, needed one above ${newest.record.seq}`)
    }
    this.#keep(id, { record, value: Uint8Array.from(value), seen: this.now() })
    return record
  }

  /** For the DHT: accepts or throws. */
  readonly validate: ValidateFn = async (key, value) => {
    await this.accept(key, value)
  }

  /** For the DHT: the index of the newest of records that were accepted before. */
  readonly select: SelectFn = async (key, values) => {
    const seqs = await Promise.all(values.map(async value => (await this.#verify(key, value, this.now())).seq))
    return seqs.indexOf(Math.max(...seqs))
  }

  /** Every record that is remembered, with its bytes. */
  protected entries(): IterableIterator<Entry<Record>> {
    return this.#entries.values()
  }

  /** The newest record of a key that was seen and has not expired, with its bytes. */
  protected live(key: Uint8Array): Entry<Record> | undefined {
    const entry = this.#entries.get(Buffer.from(key).toString('latin1'))
    return entry !== undefined && this.binds(entry.record) && entry.record.expires > this.now() ? entry : undefined
  }

  /** Whether what has a lower number than this is old. */
  protected binds(record: Record): boolean {
    return record.seq >= 0
  }

  #keep(id: string, entry: Entry<Record>): void {
    this.#drop(id)
    if (this.#entries.size >= this.#max || this.#countOf(id) >= this.#maxOwned) this.#dropExpired()
    if (this.#entries.size >= this.#max) throw new NarvikError('refused', `Cannot accept a record: found ${this.#max} live ones, needed fewer`)
    // One member must not take the room of the others.
    if (this.#countOf(id) >= this.#maxOwned) throw new NarvikError('refused', `Cannot accept a record: found ${this.#maxOwned} live ones of its owner, needed fewer`)
    this.#entries.set(id, entry)
    this.#owned.set(ownerOf(id), this.#countOf(id) + 1)
  }

  #drop(id: string): void {
    if (!this.#entries.delete(id)) return
    const left = this.#countOf(id) - 1
    if (left === 0) this.#owned.delete(ownerOf(id))
    else this.#owned.set(ownerOf(id), left)
  }

  #countOf(id: string): number {
    return this.#owned.get(ownerOf(id)) ?? 0
  }

  #dropExpired(): void {
    // Until then an older record may still be offered.
    const past = this.now() - CLOCK_SKEW_MS
    for (const [id, { record, seen }] of this.#entries) {
      // What its owner has not renewed is gone from the DHT, however long it may be valid.
      if (record.expires <= past || seen <= past - RECORD_LIFETIME_MS) this.#drop(id)
    }
  }
}

/** Keys end in what the record is about, after whose it is. */
function ownerOf(id: string): string {
  return id.slice(0, id.lastIndexOf('/'))
}

/** The image records. */
export class RecordBook extends SequencedBook<ImageRecord> {
  constructor(init: RecordBookInit = {}) {
    super(async (key, value, now) => (await verifyRecord(key, value, now)).record, init)
  }

  /** A number is a time: one of a time to come was taken while the clock was ahead, and would be refused now. */
  protected override binds({ seq }: ImageRecord): boolean {
    return seq <= this.now() + CLOCK_SKEW_MS
  }

  /** The newest record that was seen and has not expired. */
  newest(peerId: string, narHash: NarHash): ImageRecord | undefined {
    return this.live(recordKey(peerId, narHash))?.record
  }
}
