import type { NarHash } from '../image/nar-hash.ts'

/** What a host says of an image that it holds. */
export interface Announcement {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
  /** BLAKE3 of the encoded manifest, lower case hex; null where there is none. */
  readonly manifestDigest: string | null
}

/** A peer that has announced an image. It may be gone or wrong: dial and see. */
export interface Provider {
  readonly peerId: string
  /** Multiaddrs. */
  readonly addresses: readonly string[]
  /** What it signed, where that was found in time. */
  readonly record?: Announcement
}

/** Who holds what. Every implementation passes the same suite of tests. */
export interface ContentRouter {
  /** Tells the fleet, now and until `withdraw`, that this host holds the image. `reached`: peers that took it; 0 is no error, it is said again as peers come. */
  announce(announcement: Announcement, options?: { signal?: AbortSignal | undefined }): Promise<{ reached: number }>
  /** Tells the fleet that this host holds the image no longer; nothing happens where it was not announced. */
  withdraw(narHash: NarHash, options?: { signal?: AbortSignal | undefined }): Promise<void>
  /** The other hosts that hold the image, as they are found, each once. Ends when all were asked; rejects with the signal's reason. */
  find(narHash: NarHash, options?: { signal?: AbortSignal | undefined }): AsyncIterable<Provider>
}
