import { messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Logger } from '../log.ts'
import type { ContentRouter } from '../p2p/router.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow } from '../store/image-row.ts'

/**
 * Tells the fleet which images this host holds: the only bridge between the catalog and the router. Announcing goes
 * on in the background, because an image is verified whether or not a peer could be told.
 */
export class Announcer {
  readonly #router: ContentRouter
  readonly #logger: Logger
  readonly #abort = new AbortController()
  readonly #pending = new Set<Promise<void>>()

  constructor({ router, logger }: { router: ContentRouter, logger: Logger }) {
    this.#router = router
    this.#logger = logger
  }

  /** Announces a verified image. */
  announce(row: ImageRow): void {
    if (row.state !== 'verified' || row.narSize === null || row.manifestDigest === null) return
    const { narHash, narSize, manifestDigest } = row
    this.#run(`announce ${narHash.toSri()}`, async () => {
      const { reached } = await this.#router.announce({ narHash, narSize, manifestDigest }, { signal: this.#abort.signal })
      this.#logger.debug('announced', { narHash: narHash.toSri(), reached })
    })
  }

  /** Takes an image back that is no longer verified here. */
  withdraw(narHash: NarHash): void {
    this.#run(`withdraw ${narHash.toSri()}`, () => this.#router.withdraw(narHash))
  }

  /** Announces all that is verified; for the start, and after a first peer has appeared. */
  announceAll(catalog: Pick<Catalog, 'list'>): void {
    for (const row of catalog.list({ state: 'verified' })) this.announce(row)
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    await Promise.allSettled(this.#pending)
  }

  #run(action: string, work: () => Promise<void>): void {
    const task = work().catch((error: unknown) => {
      if (!this.#abort.signal.aborted) this.#logger.warn(`Cannot ${action}`, { reason: messageOf(error) })
    }).finally(() => { this.#pending.delete(task) })
    this.#pending.add(task)
  }
}
