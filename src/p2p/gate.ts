import type { ConnectionGater } from '@libp2p/interface'
import type { Bans } from './bans.ts'
import { HalfOpen } from './half-open.ts'

/** Which peers the configuration lets in, by their peer ids. */
export interface PeerLists {
  /** Where it is not empty: these and nobody else. */
  readonly allow: readonly string[]
  readonly deny: readonly string[]
}

/** Decides with whom this host has to do at all, whoever dials: by the configuration's lists, and by the bans. */
export class Gate {
  readonly #bans: Bans
  readonly #halfOpen = new HalfOpen()
  #allow: ReadonlySet<string> = new Set()
  #deny: ReadonlySet<string> = new Set()

  constructor(bans: Bans, lists: PeerLists = { allow: [], deny: [] }) {
    this.#bans = bans
    this.setLists(lists)
  }

  setLists({ allow, deny }: PeerLists): void {
    this.#allow = new Set(allow)
    this.#deny = new Set(deny)
  }

  refuses(peerId: string): boolean {
    return this.#deny.has(peerId) || (this.#allow.size > 0 && !this.#allow.has(peerId)) || this.#bans.has(peerId)
  }

  /** libp2p's questions are "deny?". */
  readonly gater: ConnectionGater = {
    denyDialPeer: peerId => this.refuses(peerId.toString()),
    denyInboundConnection: connection => !this.#halfOpen.admit(connection),
    denyInboundEncryptedConnection: (peerId, connection) => {
      this.#halfOpen.settle(connection)
      return this.refuses(peerId.toString())
    },
    denyOutboundEncryptedConnection: peerId => this.refuses(peerId.toString()),
    // A private fleet lives on private addresses, which libp2p's own gater may deny.
    denyDialMultiaddr: () => false,
  }
}
