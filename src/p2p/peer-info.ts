/** A peer that came, went or was banned. */
export interface PeerChange {
  readonly peerId: string
  readonly change: 'connected' | 'disconnected' | 'banned'
  readonly reason: string | null
}

export type PeerListener = (change: PeerChange) => void

export interface PeerInfo {
  readonly peerId: string
  /** Multiaddrs of the open connections. */
  readonly addresses: readonly string[]
  /** Who dialled; null where there is no connection. */
  readonly direction: 'inbound' | 'outbound' | null
  readonly latencyMs: number | null
  /** What the peer says that it runs. */
  readonly agent: string | null
  readonly connectedSince: Date | null
  readonly banned: boolean
  /** Exchanges that are going on, in either direction. */
  readonly streams: number
  /** Bytes of bodies, in each direction, since the node was made. */
  readonly received: number
  readonly sent: number
}
