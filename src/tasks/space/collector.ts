import { isNarvikError, messageOf } from '../../errors.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { measureTree } from '../../nar/disk-usage.ts'
import type { ImageRow } from '../../store/image-row.ts'
import type { TaskContext } from '../context.ts'
import { dropImage } from '../remove-image.ts'
import { CollectionOrder, type Collectable } from './collection-order.ts'
import { Copies } from './copies.ts'

export interface CollectRequest {
  /** Bytes on disk that are to be given free; `all`: whatever has no name. */
  readonly need: number | 'all'
  /** Copies that must be left elsewhere in the fleet. */
  readonly minCopies: number
  /** Only finds out what would go. */
  readonly dryRun?: boolean
  readonly signal: AbortSignal
}

export interface Collected {
  readonly narHash: NarHash
  readonly name: string | null
  /** `rejected`: the bytes of a rejected image, whose evidence stays. */
  readonly what: 'image' | 'rejected'
  readonly diskBytes: number
  readonly usedAt: Date
}

export interface Kept {
  readonly narHash: NarHash
  readonly name: string | null
  readonly reason: string
}

export interface Collection {
  readonly collected: readonly Collected[]
  /** What was next in the order, and had to stay. */
  readonly kept: readonly Kept[]
  readonly freedBytes: number
}

type Parts = Pick<TaskContext, 'catalog' | 'content' | 'node' | 'jobs' | 'announcer' | 'uses' | 'logger'>

/** A search for the copies of an image elsewhere: those that were found, and what to say where they are too few. */
interface Found {
  readonly holders: readonly string[]
  readonly tooFew: string | undefined
}

/**
 * Gives room free: bytes of rejected images first, then verified images in the order of CollectionOrder. Never what is pinned, in use, or
 * needed by something that stays, nor one of the last copies in the fleet.
 */
export class Collector {
  readonly #parts: Parts
  readonly #copies: Copies

  constructor(parts: Parts) {
    this.#parts = parts
    this.#copies = new Copies(parts)
  }

  async collect(request: CollectRequest): Promise<Collection> {
    const run = new Run(request)
    await this.#collectRejected(run)
    await this.#collectImages(run)
    const { collected, kept, freedBytes } = run
    if (freedBytes > 0 && request.dryRun !== true) this.#parts.logger.info('collected', { images: collected.length, freedBytes })
    return { collected, kept, freedBytes }
  }

  async #collectRejected(run: Run): Promise<void> {
    const { catalog, content, jobs } = this.#parts
    for (const row of catalog.list({ state: 'rejected' })) {
      if (run.isDone(false)) return
      const { diskBytes } = await measureTree(content.quarantine(row.narHash), { signal: run.request.signal })
      if (diskBytes === 0 || jobs.find(row.narHash) !== undefined) continue
      if (run.request.dryRun !== true) {
        await jobs.run('collect', row.narHash, async () => {
          if (catalog.get(row.narHash)?.state === 'rejected') await content.discardQuarantine(row.narHash)
        }).result
      }
      run.collected.push({ narHash: row.narHash, name: row.name, what: 'rejected', diskBytes, usedAt: this.#usedAt(row) })
    }
  }

  async #collectImages(run: Run): Promise<void> {
    const rows = new Map(this.#parts.catalog.list({ state: 'verified' }).map(row => [row.narHash.toNix32(), row]))
    const order = new CollectionOrder(Array.from(rows.values(), row => this.#describe(row)))
    for (let next = order.next(); next !== undefined && !run.isDone(next.isNamed); next = order.next()) {
      run.request.signal.throwIfAborted()
      const row = rows.get(next.key)
      if (row === undefined) continue
      const diskBytes = row.diskBytes ?? (await measureTree(this.#parts.content.imageTree(row.narHash), { signal: run.request.signal })).diskBytes
      const reason = await this.#collectOne(row, next, run.request)
      if (reason === undefined) {
        run.collected.push({ narHash: row.narHash, name: row.name, what: 'image', diskBytes, usedAt: this.#usedAt(row) })
        order.gone(next)
      } else {
        run.kept.push({ narHash: row.narHash, name: row.name, reason })
      }
    }
  }

  #describe(row: ImageRow): Collectable {
    const registrations = this.#parts.catalog.registrations(row.narHash)
    return {
      key: row.narHash.toNix32(),
      usedAt: this.#usedAt(row).getTime(),
      isNamed: row.name !== null,
      mayGo: row.place === 'content' && row.pinnedAt === null,
      storePaths: registrations.map(({ storePath }) => storePath),
      references: registrations.flatMap(({ references }) => references),
    }
  }

  #usedAt({ narHash, usedAt }: ImageRow): Date {
    return new Date(Math.max(usedAt.getTime(), this.#parts.uses.lastUse(narHash) ?? 0))
  }

  /** Removes one image, or says why it stays. */
  async #collectOne(row: ImageRow, planned: Collectable, request: CollectRequest): Promise<string | undefined> {
    const busy = this.#busyWith(row)
    if (busy !== undefined) return busy
    const { holders, tooFew } = await this.#findCopies(row, request)
    if (tooFew !== undefined || request.dryRun === true) return tooFew
    // A job that came meanwhile is not waited for: it may itself wait for the room that is being made.
    return this.#busyWith(row) ?? await this.#parts.jobs.run('collect', row.narHash, () => this.#leave(row, { planned, holders, signal: request.signal })).result
  }

  #busyWith({ narHash }: ImageRow): string | undefined {
    if (this.#parts.uses.isHeld(narHash)) return 'it is in use'
    const job = this.#parts.jobs.find(narHash)
    return job === undefined ? undefined : `something is done with it (${job.kind})`
  }

  async #findCopies({ narHash }: ImageRow, { minCopies, signal }: CollectRequest): Promise<Found> {
    const holders = await this.#copies.find(narHash, minCopies, signal)
    const tooFew = holders.length < minCopies ? `the fleet needs this copy: ${minCopies} must be left, and ${holders.length} of the hosts that come before this one hold it` : undefined
    return { holders, tooFew }
  }

  /**
   * The announcement goes first, so that nobody sets out for what is about to go; then the holders are asked once more, since that took time;
   * then the image itself goes. From the beginning of it peers are told that it is not here, so that no two hosts count on each other.
   */
  async #leave({ narHash }: ImageRow, { planned, holders, signal }: { planned: Collectable, holders: readonly string[], signal: AbortSignal }): Promise<string | undefined> {
    const { announcer, uses } = this.#parts
    if (this.#rowAsPlanned(narHash, planned) === undefined) return 'it was used meanwhile'
    using _leaving = uses.leave(narHash)
    let gone = false
    try {
      await announcer.withdrawNow(narHash)
      if (!await this.#copies.stillHold(narHash, holders, signal)) return 'the fleet needs this copy: another one went meanwhile'
      const now = this.#rowAsPlanned(narHash, planned)
      if (now === undefined) return 'it was used meanwhile'
      await dropImage(this.#parts, now, `collected: last used ${this.#usedAt(now).toISOString()}`)
      gone = true
      return undefined
    } catch (error) {
      if (signal.aborted || !isNarvikError(error)) throw error
      return messageOf(error)
    } finally {
      if (!gone) this.#stay(narHash)
    }
  }

  /** It does not go after all, and the fleet learns of it again. */
  #stay(narHash: NarHash): void {
    const row = this.#parts.catalog.get(narHash)
    if (row?.state === 'verified') this.#parts.announcer.announce(row)
  }

  /** The image, where it may still go and nobody has used or named it since. */
  #rowAsPlanned(narHash: NarHash, { usedAt, isNamed }: Collectable): ImageRow | undefined {
    const row = this.#parts.catalog.get(narHash)
    if (row?.state !== 'verified' || row.place !== 'content' || row.pinnedAt !== null || this.#parts.uses.isHeld(narHash)) return undefined
    return (row.name !== null) === isNamed && this.#usedAt(row).getTime() === usedAt ? row : undefined
  }
}

/** What one collection has come to so far. */
class Run {
  readonly request: CollectRequest
  readonly collected: Collected[] = []
  readonly kept: Kept[] = []

  constructor(request: CollectRequest) {
    this.request = request
  }

  get freedBytes(): number {
    return this.collected.reduce((sum, { diskBytes }) => sum + diskBytes, 0)
  }

  /** Whether enough is free, or the next one has a name and is not asked for. */
  isDone(isNextNamed: boolean): boolean {
    const { need } = this.request
    return need === 'all' ? isNextNamed : this.freedBytes >= need
  }
}
