import { CLOCK_SKEW_MS, MAX_PEER_RECORDS, RECORD_LIFETIME_MS, RECORD_UNIT_BYTES } from '../limits.ts'

export interface StorageQuotaInit {
  /** Units of one peer, and of all. */
  readonly perPeer?: number
  readonly inAll: number
  /** Milliseconds of a clock that only goes forward. */
  readonly now?: () => number
}

interface Kept {
  readonly units: number
  readonly until: number
}

/** What one peer has had remembered, in the order in which it runs out. */
interface Account {
  units: number
  readonly kept: Map<string, Kept>
}

/** A peer has at most so many times what is left for all others together: however many take all they can get, a newcomer finds something left. */
const TIMES_WHAT_IS_LEFT = 2

/**
 * Counts what the DHT keeps for others, which it does itself without an end, against whoever has sent it: whose name is in a record says
 * nothing, as names can be made up.
 */
export class StorageQuota {
  readonly #perPeer: number
  readonly #inAll: number
  readonly #now: () => number
  readonly #accounts = new Map<string, Account>()
  #total = 0

  constructor({ perPeer = MAX_PEER_RECORDS, inAll, now = () => performance.now() }: StorageQuotaInit) {
    this.#perPeer = perPeer
    this.#inAll = inAll
    this.#now = now
  }

  /** Whether a record that the peer sends may be kept, or one that is kept already be renewed. */
  takes(peerId: string, key: Uint8Array, bytes = 0): boolean {
    const account = this.#accounts.get(peerId) ?? { units: 0, kept: new Map<string, Kept>() }
    const id = Buffer.from(key).toString('latin1')
    const units = Math.max(1, Math.ceil(bytes / RECORD_UNIT_BYTES))
    const more = units - (account.kept.get(id)?.units ?? 0)
    if (more > 0 && !this.#hasRoom(account, more)) {
      for (const [other, theirs] of this.#accounts) this.#expire(other, theirs)
      if (!this.#hasRoom(account, units - (account.kept.get(id)?.units ?? 0))) return false
    }
    this.#drop(account, id)
    account.kept.set(id, { units, until: this.#now() + RECORD_LIFETIME_MS + CLOCK_SKEW_MS })
    account.units += units
    this.#total += units
    this.#accounts.set(peerId, account)
    return true
  }

  #hasRoom(account: Account, more: number): boolean {
    const left = this.#inAll - this.#total - more
    return left >= 0 && account.units + more <= Math.min(this.#perPeer, Math.max(1, TIMES_WHAT_IS_LEFT * left))
  }

  #drop(account: Account, id: string): void {
    const kept = account.kept.get(id)
    if (kept === undefined) return
    account.kept.delete(id)
    account.units -= kept.units
    this.#total -= kept.units
  }

  #expire(peerId: string, account: Account): void {
    const now = this.#now()
    for (const [id, { until }] of account.kept) {
      if (until > now) break
      this.#drop(account, id)
    }
    if (account.kept.size === 0) this.#accounts.delete(peerId)
  }
}
