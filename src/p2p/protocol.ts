import type { Connection, Stream } from '@libp2p/interface'
import type { ErrorCode } from '../errors.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import type { ChunkRun, ChunkSet } from '../image/chunk-set.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Flight } from './in-flight.ts'
import type { Pace } from './pace.ts'

/** Why a peer did not answer with what was asked for; none of them is the peer's fault. */
export type Refusal = 'not-found' | 'busy' | 'refused'

/** What peers are told of an image. */
export interface ImageDescription {
  /** Whether this host has proven it; otherwise it passes on what it was told. */
  readonly verified: boolean
  readonly metadata: ImageMetadata
  /** No bytes where there is none. */
  readonly manifest: Uint8Array
}

/** Where the bytes that peers ask for come from. */
export interface ImageSource {
  /** What is known of an image that is verified, or being received in chunks; undefined where this host has none. */
  describe(narHash: NarHash): Promise<ImageDescription | undefined>
  /**
   * `length` bytes of the image's NAR from `offset`, in buffers that are used for nothing else afterwards. The first step
   * rejects with `not-found` where this host has no such verified image and with `invalid-argument` where the range is not
   * within the NAR; the peer is then told `not-found` or `refused`.
   */
  read(narHash: NarHash, offset: number, length: number, options: { signal: AbortSignal }): AsyncIterable<Uint8Array>
}

/** One store path of a closure, as hosts tell each other. */
export interface ClosurePath {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
  readonly storePath: string
  /** Numbers of paths of the same closure, ascending: earlier ones, or its own. */
  readonly references: readonly number[]
  readonly deriver: string | null
  readonly ca: string | null
  readonly signatures: readonly string[]
  /** BLAKE3 of the encoded manifest, lower case hex; null where there is none. */
  readonly manifestDigest: string | null
}

/** What is known of closures here. */
export interface ClosureSource {
  /** The whole closure of a verified image, each path after those that it refers to. */
  closure(narHash: NarHash): Promise<readonly ClosurePath[] | 'not-found' | 'incomplete'>
  /** Bytes of the NAR of a verified image; undefined where this host has none. */
  narSize(narHash: NarHash): number | undefined
}

/** The chunks of one image that this host may give away; more may come. */
export interface ChunkHolding {
  readonly chunks: ChunkList
  /** Those that are proven and on disk; grows, and never shrinks. Not to be changed. */
  readonly have: ChunkSet
  /** Calls `listener` with each run that is added from now on; returns how to stop that. */
  onAdded(listener: (run: ChunkRun) => void): () => void
  /** Aborts when nothing of the image may be given away any more. */
  readonly gone: AbortSignal
  /** The bytes of a run, of which nothing is checked yet, in a buffer that nobody else has or needs; rejects where they can't be read. */
  read(run: ChunkRun, options: { signal: AbortSignal }): Promise<Uint8Array>
  /** What is on disk is not the chunk that was proven. */
  damaged(chunk: number): void
  /** A peer asks for chunks: it may have some itself. */
  met(peerId: string): void
}

/** What is held of images in chunks. */
export interface ChunkSource {
  /** Undefined where this host has no chunk of the image, or another manifest of it. */
  hold(narHash: NarHash, manifestDigest: string): ChunkHolding | undefined
}

/** Opens a stream to a peer and keeps the books; what the protocols' clients need of the node. */
export interface StreamOpener {
  /** Resolves to `busy` where this host has too many streams of the protocol open to the peer. */
  open(peerId: string, protocol: string, options: { signal: AbortSignal | undefined }): Promise<OpenStream | 'busy'>
}

export interface OpenStream {
  readonly stream: Stream
  /** Aborts when the caller's signal does, or when the node stops. */
  readonly signal: AbortSignal
  readonly traffic: Traffic
}

/** Bytes of bodies: of one exchange, or of all with one peer. */
export interface Traffic {
  /** Bytes that were taken from the peer. */
  received: number
  /** Bytes that were handed over to be sent; counted before they go, so that a peer never counts more than that. */
  sent: number
  /** Keeps the limits of this host; nothing is held back where it is absent. */
  readonly pace?: Pace | undefined
  /** Bounds what is on the way to the peer; nothing does where it is absent. */
  readonly flight?: Flight | undefined
  /** Says that the exchange did not end in order: what became of its bytes is not known here. */
  breakOff?(): void
  /** Says of which image the exchange sends bytes, until it is over. */
  sends?(narHash: NarHash): void
  /** Says that the exchange is over, whatever came of it. */
  end?(): void
}

/** An exchange that a peer has asked for, when it is over. */
export interface Served {
  readonly peerId: string
  readonly protocol: string
  readonly about: NarHash | undefined
  readonly startedAt: Date
  readonly sent: number
  /** Code of the error that ended it. */
  readonly code: ErrorCode | undefined
}

/** One end of a protocol: serves the stream to its end, and never rejects. */
export type StreamHandler = (stream: Stream, connection: Pick<Connection, 'remotePeer'>) => Promise<void>
