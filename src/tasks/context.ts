import type { RefKind } from '../image/ref.ts'
import type { Sharing } from '../config.ts'
import type { Logger } from '../log.ts'
import type { NixCommand } from '../nix/command.ts'
import type { PublicKey } from '../nix/signature.ts'
import type { P2pNode } from '../p2p/node.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Content } from '../store/content.ts'
import type { Announcer } from './announce.ts'
import type { FetchQueue } from './fetch-queue.ts'
import type { GuardedPaths } from './guarded-paths.ts'
import type { Jobs } from './jobs.ts'
import type { PathInfos } from './path-infos.ts'
import type { Space } from './space/space.ts'
import type { Uses } from './space/uses.ts'
import type { Receiving } from './swarm/receiving.ts'

/** The parts that the tasks bring together; made by the daemon, all of them required. */
export interface TaskContext {
  readonly catalog: Catalog
  readonly content: Content
  readonly node: FleetNode
  readonly nix: Pick<NixCommand, 'storeDir' | 'probe' | 'pathInfo' | 'canWriteStore' | 'addPath' | 'hasRoot' | 'closureInfo' | 'startStoreDaemon' | 'verify'>
  readonly pathInfos: Pick<PathInfos, 'get'>
  readonly jobs: Jobs
  /** The fetches of closures: one job for the image that a closure is of, beside those for each of its paths. */
  readonly closures: Jobs
  readonly announcer: Announcer
  readonly uses: Uses
  readonly queue: FetchQueue
  readonly space: Pick<Space, 'claim' | 'release' | 'check' | 'isLow' | 'untilRoom' | 'collect' | 'ownBytes' | 'paused' | 'settings'>
  readonly receiving: Receiving
  readonly logger: Logger
  readonly settings: TaskSettings
}

/** Whose word this host takes, and how many of them it needs. */
export interface TrustSettings {
  readonly keys: readonly PublicKey[]
  /** Different trusted keys that must have signed an image, by how it is asked for. */
  readonly needed: Readonly<Record<RefKind, number>>
}

/** What the tasks use of the network. */
export type FleetNode = Pick<P2pNode, 'peerId' | 'addresses' | 'router' | 'names' | 'open' | 'peers' | 'connectedPeers' | 'onPeer' | 'onPeerChange' | 'routingPeers' | 'traffic' | 'sending' | 'ban' | 'bans' | 'unban' | 'isBanned'>

export interface TaskSettings {
  readonly trust: TrustSettings
  /** Which images the fleet is told of. */
  readonly announce: Sharing
  /** What clients get neither to read nor to write. */
  readonly guarded: GuardedPaths
  /** Whether Nix is asked at all. */
  readonly useNix: boolean
  /** Bytes of NAR up to which an imported tree is added to the Nix store; 0 never does. */
  readonly storeAddMaxBytes: number
  /** Whether what is fetched is installed in the Nix store by itself. */
  readonly installFetched: boolean
  /** Milliseconds that a fetch waits for a first or a next provider. */
  readonly providerWaitMs: number
  /** Milliseconds over which a provider's speed is judged, and without a byte after which it is left. */
  readonly stallMs: number
  /** Bytes per second below which a provider is left for another one, where there is another one. */
  readonly slowBytesPerSecond: number
  /** Milliseconds for which a peer that was proven to lie is banned. */
  readonly banMs: number
}
