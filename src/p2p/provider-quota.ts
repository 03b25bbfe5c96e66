import { MAX_PEER_RECORDS, MAX_PROVIDER_RECORDS, RECORD_LIFETIME_MS } from '../limits.ts'

export interface ProviderQuotaInit {
  /** Records of one peer, and of all. */
  readonly perPeer?: number
  readonly inAll?: number
  /** Milliseconds of a clock that only goes forward. */
  readonly now?: () => number
}

/** Counts the provider records that the DHT keeps for others, which it does itself without an end. */
export class ProviderQuota {
  readonly #perPeer: number
  readonly #inAll: number
  readonly #now: () => number
  /** For each peer when each of its records runs out, in the order in which they do. */
  readonly #kept = new Map<string, Map<string, number>>()
  #total = 0

  constructor({ perPeer = MAX_PEER_RECORDS, inAll = MAX_PROVIDER_RECORDS, now = () => performance.now() }: ProviderQuotaInit = {}) {
    this.#perPeer = perPeer
    this.#inAll = inAll
    this.#now = now
  }

  /** Whether one more record of the peer may be kept, or one that is kept already be renewed. */
  takes(peerId: string, key: Uint8Array): boolean {
    const records = this.#kept.get(peerId) ?? new Map<string, number>()
    const id = Buffer.from(key).toString('latin1')
    if (!records.has(id)) {
      if (records.size >= this.#perPeer) this.#expire(peerId, records)
      if (this.#total >= this.#inAll) for (const [other, theirs] of this.#kept) this.#expire(other, theirs)
      if (records.size >= this.#perPeer || this.#total >= this.#inAll) return false
      this.#total += 1
    }
    records.delete(id)
    records.set(id, this.#now() + RECORD_LIFETIME_MS)
    this.#kept.set(peerId, records)
    return true
  }

  #expire(peerId: string, records: Map<string, number>): void {
    const now = this.#now()
    for (const [id, until] of records) {
      if (until > now) break
      records.delete(id)
      this.#total -= 1
    }
    if (records.size === 0) this.#kept.delete(peerId)
  }
}
