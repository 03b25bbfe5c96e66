import type { Logger } from '../log.ts'
import type { BanStore } from './bans.ts'
import type { FleetKeys } from './fleet.ts'
import type { PeerLists } from './gate.ts'
import type { PeerLimits } from './peer-limits.ts'
import type { ChunkSource, ClosureSource, ImageSource, Served } from './protocol.ts'

export interface NodeComponents {
  readonly logger: Logger
  readonly source: ImageSource
  /** Where absent, no closures are served. */
  readonly closures?: ClosureSource | undefined
  /** Where absent, bans end with the node. */
  readonly banStore?: BanStore | undefined
  readonly limits?: PeerLimits | undefined
  /** Where absent, no chunks are served. */
  readonly chunks?: ChunkSource | undefined
  /** Called when an exchange that a peer has asked for is over. */
  readonly onServed?: ((exchange: Served) => void) | undefined
  /** Milliseconds since 1970. */
  readonly now?: (() => number) | undefined
}

export interface NodeInit {
  /** The host's key as `loadIdentity` gives it; without one a new key is used and not kept. */
  readonly identity?: Uint8Array | undefined
  /** Multiaddrs; without a fleet key only those of loopback are allowed. */
  readonly listen: readonly string[]
  /** Multiaddrs of peers to find the others through, with or without `/p2p/<peer id>` at their end. */
  readonly bootstrap?: readonly string[] | undefined
  /** Whether to find peers on the same network by mDNS; never done where only loopback is listened on. */
  readonly mdns?: boolean | undefined
  /** The keys that the hosts of the fleet share; nobody else gets past the handshake. Whether there are any is settled for the life of the node. */
  readonly fleet?: FleetKeys | undefined
  /** The peers to have to do with. */
  readonly peers?: PeerLists | undefined
  /** Allows listening beyond loopback without a fleet key. */
  readonly allowOpen?: boolean | undefined
  /** What peers are told of this program. */
  readonly agent?: string | undefined
  readonly stallMs?: number | undefined
  readonly redialMinMs?: number | undefined
  readonly redialMaxMs?: number | undefined
  readonly probeIntervalMs?: number | undefined
  readonly probeTimeoutMs?: number | undefined
}
