import { messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { ANNOUNCE_CONCURRENCY } from '../limits.ts'
import type { Logger } from '../log.ts'
import type { ContentRouter } from '../p2p/router.ts'
import type { Sharing } from '../config.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow } from '../store/image-row.ts'

/**
 * Tells the fleet which images this host holds: the only bridge between the catalog and the router. Announcing goes
 * on in the background, because an image is verified whether or not a peer could be told.
 */
export class Announcer {
  readonly #router: ContentRouter
  readonly #logger: Logger
  readonly #policy: () => Sharing
  readonly #abort = new AbortController()
  readonly #pending = new Set<Promise<void>>()
  /** Images that wait for their turn: a closure brings thousands at once. */
  readonly #waiting: ImageRow[] = []
  #tellers = 0

  /** `policy` says which images are announced, and is asked each time. */
  constructor({ router, logger }: { router: ContentRouter, logger: Logger }, { policy = () => 'everything' }: { policy?: () => Sharing } = {}) {
    this.#router = router
    this.#logger = logger
    this.#policy = policy
  }

  /** Announces a verified image, or takes it back where the policy is against it, or the image is private. */
  announce(row: ImageRow): void {
    this.#waiting.push(row)
    if (this.#tellers < ANNOUNCE_CONCURRENCY) void this.#tellWaiting()
  }

  async #tellWaiting(): Promise<void> {
    this.#tellers++
    // The last first: of a closure that is the image that others ask for.
    for (let row = this.#waiting.pop(); row !== undefined && !this.#abort.signal.aborted; row = this.#waiting.pop()) {
      const next = row
      await this.#run(`announce ${row.narHash.toSri()}`, () => this.#tell(next))
    }
    this.#tellers--
  }

  /** Announces an image that is being received: some of its chunks are here. Nothing is vouched for. */
  announceReceiving(row: ImageRow): void {
    const { narHash, narSize } = row
    if (narSize === null || !this.#isShared(row)) return
    void this.#run(`announce ${narHash.toSri()}`, async () => {
      await this.#router.announce({ narHash, narSize, manifestDigest: null }, { signal: this.#abort.signal })
    })
  }

  /** Takes an image back that is no longer verified here. */
  withdraw(narHash: NarHash): void {
    const waiting = this.#waiting.findIndex(row => row.narHash.equals(narHash))
    if (waiting !== -1) this.#waiting.splice(waiting, 1)
    void this.#run(`withdraw ${narHash.toSri()}`, () => this.#router.withdraw(narHash))
  }

  /** As `withdraw`; resolves when the fleet was told, or can't be. */
  async withdrawNow(narHash: NarHash): Promise<void> {
    const waiting = this.#waiting.findIndex(row => row.narHash.equals(narHash))
    if (waiting !== -1) this.#waiting.splice(waiting, 1)
    await this.#run(`withdraw ${narHash.toSri()}`, () => this.#router.withdraw(narHash, { signal: this.#abort.signal }))
  }

  /** The same for all that is verified, a few at a time; for the start, and when the policy changes. */
  announceAll(catalog: Pick<Catalog, 'list' | 'get'>): void {
    const rows = catalog.list({ state: 'verified' }).values()
    const tellRest = async (): Promise<void> => {
      for (const { narHash } of rows) {
        const row = catalog.get(narHash)
        if (row !== undefined && !this.#abort.signal.aborted) await this.#tell(row)
      }
    }
    for (let turn = 0; turn < ANNOUNCE_CONCURRENCY; turn++) void this.#run('announce the images', tellRest)
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    await Promise.allSettled(this.#pending)
  }

  async #tell(row: ImageRow): Promise<void> {
    const { narHash, narSize, manifestDigest, state } = row
    if (!this.#isShared(row)) {
      await this.#router.withdraw(narHash)
      return
    }
    if (state !== 'verified' || narSize === null || manifestDigest === null) return
    const { reached } = await this.#router.announce({ narHash, narSize, manifestDigest }, { signal: this.#abort.signal })
    this.#logger.debug('announced', { narHash: narHash.toSri(), reached })
  }

  #isShared({ isPrivate, name }: ImageRow): boolean {
    if (isPrivate) return false
    const policy = this.#policy()
    return policy === 'everything' || (policy === 'named' && name !== null)
  }

  /** Never rejects. */
  #run(action: string, work: () => Promise<void>): Promise<void> {
    const task = work().catch((error: unknown) => {
      if (!this.#abort.signal.aborted) this.#logger.warn(`Cannot ${action}`, { reason: messageOf(error) })
    }).finally(() => { this.#pending.delete(task) })
    this.#pending.add(task)
    return task
  }
}
