import { NarvikError } from '../errors.ts'
import { ChunkList } from '../image/chunk-list.ts'
import type { Listing } from '../image/listing.ts'
import { NarHash } from '../image/nar-hash.ts'
import { MAX_FOLLOWED_TREES, MIN_FOLLOWED_BYTES } from '../limits.ts'
import { sealTree } from './seal.ts'
import { advanceTo, createFrontier, hashedSoFar, type SharedFrontier, wake } from './thread/frontier.ts'
import { runTask, type TreeResult } from './thread/pool.ts'
import type { TreeWriter } from './tree-writer.ts'

/** What a tree was found to be while it was received. */
export interface FollowedTree {
  readonly listing: Listing
  readonly narHash: NarHash
  readonly chunks: ChunkList
}

interface Following {
  readonly frontier: SharedFrontier
  readonly abort: AbortController
  readonly result: Promise<TreeResult>
}

let followed = 0

/**
 * Hashes a tree from disk, in another thread, behind the frontier of the bytes that have come, so that most of it is hashed when the last one comes. It
 * reads what is there, also what an earlier run of the daemon has left. It begins when so much lies behind the frontier that it is worth a thread: hosts
 * that start a fetch have enough to do. A tree of which there is never so much, or that is one too many, is not followed: `seal` tells.
 */
export class Follower {
  readonly #writer: TreeWriter
  #following: Following | undefined
  #isOver = false

  /** To follow, from its first byte on, the tree that `writer` writes. `seal` or `stop` must be called in the end. */
  constructor(writer: TreeWriter) {
    this.#writer = writer
  }

  /** Bytes of the NAR that are hashed. */
  get hashed(): number {
    return this.#following === undefined ? 0 : hashedSoFar(this.#following.frontier)
  }

  /** Every byte of the NAR below `offset` is in its file now. */
  advance(offset: number): void {
    if (this.#following === undefined && !this.#isOver && offset >= MIN_FOLLOWED_BYTES && followed < MAX_FOLLOWED_TREES) this.#following = follow(this.#writer)
    if (this.#following !== undefined) advanceTo(this.#following.frontier, offset, this.#writer.layout.narSize)
  }

  /**
   * Seals the finished tree, after the writer was closed, and gives what it was found to be. Undefined where that isn't sure to be what is on disk now, because
   * somebody else has changed a file, or where it was not followed: then it has to be read.
   * @throws NarvikError as `sealTree`; the reason of `signal`.
   */
  async seal({ signal, onProgress }: { signal?: AbortSignal, onProgress?: (bytesSoFar: number) => void } = {}): Promise<FollowedTree | undefined> {
    const { root, layout, stamps } = this.#writer
    const stop = (): void => { void this.stop() }
    signal?.addEventListener('abort', stop)
    const timer = setInterval(() => onProgress?.(this.hashed), PROGRESS_MS)
    try {
      // What is not followed by now is read as a whole, by as many threads as that takes.
      this.#isOver = true
      this.advance(layout.narSize)
      // Whatever went wrong, reading the tree as a whole tells it again or does better. Its thread seals the tree then: another one would cost more than it saves.
      const found = await this.#finish().catch(() => undefined)
      const { isAsStamped } = await sealTree(root, { ...signal && { signal }, ...stamps && { stamped: { listing: layout.listing, stamps } } })
      signal?.throwIfAborted()
      return isAsStamped ? found : undefined
    } finally {
      clearInterval(timer)
      signal?.removeEventListener('abort', stop)
      await this.stop()
    }
  }

  /** Ends the hashing, if it goes on; resolves when nothing is read any more. */
  async stop(): Promise<void> {
    this.#isOver = true
    const following = this.#following
    this.#following = undefined
    if (following === undefined) return
    following.abort.abort()
    wake(following.frontier)
    await following.result.catch(() => undefined)
  }

  async #finish(): Promise<FollowedTree | undefined> {
    if (this.#following === undefined) return undefined
    const { digest, chunks } = await this.#following.result
    if (digest === undefined || chunks === undefined) throw new NarvikError('internal', `Cannot hash ${this.#writer.root}: found no hash in the answer, needed one`)
    return { listing: this.#writer.layout.listing, narHash: NarHash.fromBytes(digest), chunks: new ChunkList(chunks) }
  }
}

function follow({ root, layout }: TreeWriter): Following {
  const frontier = createFrontier()
  const abort = new AbortController()
  followed++
  const result = runTask({ task: 'follow', root, columns: layout.listing.columns, frontier }, { signal: abort.signal }).finally(() => { followed-- })
  // It is awaited at the end only, which may not come.
  result.catch(() => undefined)
  return { frontier, abort, result }
}

const PROGRESS_MS = 100
