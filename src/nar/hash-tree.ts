import { NarvikError } from '../errors.ts'
import { ChunkList } from '../image/chunk-list.ts'
import { Listing } from '../image/listing.ts'
import { NarHash } from '../image/nar-hash.ts'
import { runTask, type TreeResult } from './thread/pool.ts'

export interface HashedTree {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
  readonly listing: Listing
}

export interface ChunkedTree extends HashedTree {
  readonly chunks: ChunkList
}

export interface HashTreeOptions {
  readonly signal?: AbortSignal
  /** Told the bytes of the NAR that are hashed, some ten times a second. */
  readonly onProgress?: (bytesSoFar: number) => void
  /** Reads no faster, and only when nothing else wants the processor. */
  readonly bytesPerSecond?: number | undefined
}

/**
 * The NAR hash of the tree at `path`, as `nix hash path` gives it, worked out in another thread.
 * @throws NarvikError as `scanTree`, and `changed-while-reading`; the reason of `signal` when it is aborted.
 */
export async function hashTree(path: string, options: HashTreeOptions = {}): Promise<HashedTree> {
  return hashedTree(path, await runTask({ task: 'hash', root: path, chunks: false }, options))
}

/**
 * As `hashTree`, and the chunks of the NAR, which a further thread cuts from the same bytes.
 * @throws NarvikError as `hashTree`, and `too-large` where the NAR would be over MAX_NAR_SIZE.
 */
export async function chunkTree(path: string, options: HashTreeOptions = {}): Promise<ChunkedTree> {
  const result = await runTask({ task: 'hash', root: path, chunks: true }, options)
  if (result.chunks === undefined) throw new NarvikError('internal', `Cannot hash ${path}: found no chunks in the answer, needed them`)
  return { ...hashedTree(path, result), chunks: new ChunkList(result.chunks) }
}

/**
 * The listing of the tree at `path`: everything but the contents of its files. Symlinks are not followed, also where `path` is one.
 * @throws NarvikError `not-found`; `unsupported-file` for a fifo, socket or device; `unreadable`; `refused` for what newer Nix refuses in a
 *   NAR (names over 255 bytes, targets over 4095, 64 levels); `too-large`. The message names the entry.
 */
export async function scanTree(path: string, { signal }: { signal?: AbortSignal } = {}): Promise<Listing> {
  return listingOf(await runTask({ task: 'scan', root: path }, { signal }))
}

function hashedTree(path: string, result: TreeResult): HashedTree {
  const listing = listingOf(result)
  if (result.digest === undefined || result.narSize === undefined) throw new NarvikError('internal', `Cannot hash ${path}: found no hash in the answer, needed one`)
  return { narHash: NarHash.fromBytes(result.digest), narSize: result.narSize, listing }
}

function listingOf({ columns }: TreeResult): Listing {
  if (columns === undefined) throw new NarvikError('internal', 'Cannot scan a tree: found no listing in the answer, needed one')
  return new Listing(columns)
}
