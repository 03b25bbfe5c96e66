import { isNarvikError, messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { CLOCK_SKEW_MS, SCRUB_LOOK_MS, SCRUB_RETRY_MS } from '../limits.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { repairImages } from './repair-image.ts'
import { verifyOne } from './verify-image.ts'

export interface ScrubSettings {
  /** Bytes that are read in a second at most; 0 proves nothing again. */
  readonly bytesPerSecond: number
  /** Milliseconds after its last proof in which an image is left alone. */
  readonly intervalMs: number
}

/**
 * Proves verified images again in the background, slowly and one at a time, so that damage is found before somebody needs the image. What is
 * damaged is withdrawn, and repaired from other images and from peers, as with `narvik verify --repair`. Runs from `start` to `stop`.
 */
export class Scrubber {
  readonly #context: TaskContext
  readonly #now: () => number
  #settings: ScrubSettings
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #stopped = false
  /** Until when images are left alone that were looked at, whatever came of it. */
  readonly #later = new Map<string, number>()
  #damaged = 0

  constructor(context: TaskContext, settings: ScrubSettings, { now = Date.now }: { now?: () => number } = {}) {
    this.#context = context
    this.#settings = settings
    this.#now = now
  }

  /** New settings, for the next image. */
  configure(settings: ScrubSettings): void {
    this.#settings = settings
  }

  start(): void {
    this.#timer = setInterval(() => { void this.look() }, SCRUB_LOOK_MS).unref()
  }

  /** What is being proven is ended by the jobs. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#running
  }

  /** How far it is. */
  describe() {
    const { catalog, jobs } = this.#context
    const verified = catalog.list({ state: 'verified' })
    // An image is proven as it arrives; only what comes later is said to be again.
    const again = verified.flatMap(({ provenAt, verifiedAt }) => provenAt !== null && verifiedAt !== null && provenAt > verifiedAt ? [provenAt.getTime()] : [])
    const due = this.#settings.bytesPerSecond === 0 ? [] : verified.map(row => this.#dueAt(row))
    return {
      lastAt: again.length === 0 ? null : new Date(Math.max(...again)).toISOString(),
      nextAt: due.length === 0 ? null : new Date(Math.max(this.#now(), Math.min(...due))).toISOString(),
      underWay: jobs.list().find(({ kind }) => kind === 'scrub')?.narHash.toSri() ?? null,
      damaged: this.#damaged,
    }
  }

  /** Proves what is due, until nothing is; once, however often it is asked. */
  look(): Promise<void> {
    this.#running ??= this.#proveDue().finally(() => { this.#running = undefined })
    return this.#running
  }

  async #proveDue(): Promise<void> {
    for (let next = this.#next(); next !== undefined; next = this.#next()) await this.#prove(next)
  }

  #next(): ImageRow | undefined {
    if (this.#stopped || this.#settings.bytesPerSecond === 0) return undefined
    const { catalog, jobs } = this.#context
    const due = catalog.list({ state: 'verified' }).filter(row => this.#dueAt(row) <= this.#now() && jobs.find(row.narHash) === undefined)
    return due.sort(byUrgency)[0]
  }

  #dueAt({ narHash, provenAt }: ImageRow): number {
    const proven = provenAt?.getTime() ?? 0
    // One that is yet to come was noted while the clock was wrong, and says nothing.
    return Math.max(proven > this.#now() + CLOCK_SKEW_MS ? 0 : proven + this.#settings.intervalMs, this.#later.get(narHash.toNix32()) ?? 0)
  }

  async #prove({ narHash, name }: ImageRow): Promise<void> {
    const { catalog, jobs, logger } = this.#context
    try {
      const { bytesPerSecond } = this.#settings
      const { row, verdict } = await jobs.run('scrub', narHash, async job => {
        if (catalog.get(narHash)?.state !== 'verified') return { row: undefined, verdict: undefined }
        return verifyOne(this.#context, job, { bytesPerSecond })
      }).result
      // Whatever the clock of the catalog says: no image is proven over and over.
      this.#later.set(narHash.toNix32(), this.#now() + this.#settings.intervalMs)
      if (row === undefined || verdict.verdict === 'pass') return
      this.#damaged += 1
      logger.error('found a damaged image and withdrew it', { narHash: narHash.toSri(), name, reason: verdict.reason })
      if (row.state === 'rejected') await this.#repair(narHash)
    } catch (error) {
      const gaveWay = isNarvikError(error, 'interrupted')
      this.#later.set(narHash.toNix32(), this.#now() + (gaveWay ? SCRUB_LOOK_MS : SCRUB_RETRY_MS))
      if (!gaveWay) logger.warn('cannot prove an image again', { narHash: narHash.toSri(), reason: messageOf(error) })
    }
  }

  /** Brings what is wrong of it from other images and from peers; where that fails, what is left of it stays, with its evidence. */
  async #repair(narHash: NarHash): Promise<void> {
    const { logger } = this.#context
    const [result] = await repairImages(this.#context, { ref: { kind: 'nar-hash', narHash } })
    if (result?.row.state === 'verified') logger.info('repaired a damaged image', { narHash: narHash.toSri() })
    else logger.error('cannot repair a damaged image', { narHash: narHash.toSri(), reason: result?.failure === undefined ? result?.verdict.reason : messageOf(result.failure) })
  }
}

/** What is pinned before what has a name, that before the rest, and the one that was proven longest ago first. */
export function byUrgency(a: ImageRow, b: ImageRow): number {
  return rank(a) - rank(b) || (a.provenAt?.getTime() ?? 0) - (b.provenAt?.getTime() ?? 0)
}

function rank({ pinnedAt, name }: ImageRow): number {
  if (pinnedAt !== null) return 0
  return name === null ? 2 : 1
}
