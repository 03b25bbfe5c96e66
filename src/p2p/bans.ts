import type { ConnectionGater } from '@libp2p/interface'

/** The peers that this host wants nothing of, each for a time. */
export class Bans {
  readonly #now: () => number
  readonly #until = new Map<string, { readonly until: number, readonly reason: string }>()

  constructor({ now = Date.now }: { now?: (() => number) | undefined } = {}) {
    this.#now = now
  }

  add(peerId: string, ms: number, reason: string): void {
    const until = Math.max(this.#now() + ms, this.#until.get(peerId)?.until ?? 0)
    this.#until.set(peerId, { until, reason })
  }

  has(peerId: string): boolean {
    const ban = this.#until.get(peerId)
    if (ban === undefined) return false
    if (ban.until > this.#now()) return true
    this.#until.delete(peerId)
    return false
  }

  list(): string[] {
    return [...this.#until.keys()].filter(peerId => this.has(peerId))
  }

  /** Keeps banned peers from connecting, whoever dials; libp2p's questions are "deny?". */
  readonly gater: ConnectionGater = {
    denyDialPeer: peerId => this.has(peerId.toString()),
    denyInboundEncryptedConnection: peerId => this.has(peerId.toString()),
    denyOutboundEncryptedConnection: peerId => this.has(peerId.toString()),
    // A private fleet lives on private addresses, which libp2p's own gater may deny.
    denyDialMultiaddr: () => false,
  }
}
