import type { Listing } from '../image/listing.ts'
import { NarHash } from '../image/nar-hash.ts'
import { runTreeJob } from './tree-thread.ts'

export interface HashedTree {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
  readonly listing: Listing
}

/**
 * The NAR hash of the tree at `path`, as `nix hash path` gives it, worked out in another thread. `onProgress` is told the bytes of the
 * NAR that are hashed, some ten times a second.
 * @throws NarvikError as `scanTree`, and `changed-while-reading`; the reason of `signal` when it is aborted.
 */
export async function hashTree(path: string, { signal, onProgress }: { signal?: AbortSignal, onProgress?: (bytesSoFar: number) => void } = {}): Promise<HashedTree> {
  const { digest, narSize, listing } = await runTreeJob(path, { hash: true, signal, onProgress })
  return { narHash: NarHash.fromBytes(digest), narSize, listing }
}

/**
 * The listing of the tree at `path`: everything but the contents of its files. Symlinks are not followed, also where `path` is one.
 * @throws NarvikError `not-found`; `unsupported-file` for a fifo, socket or device; `unreadable`; `refused` for what newer Nix refuses in a
 *   NAR (names over 255 bytes, targets over 4095, 64 levels); `too-large`. The message names the entry.
 */
export async function scanTree(path: string, { signal }: { signal?: AbortSignal } = {}): Promise<Listing> {
  return (await runTreeJob(path, { hash: false, signal })).listing
}
