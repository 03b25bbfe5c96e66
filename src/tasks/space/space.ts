import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { formatBytes } from '../../byte-size.ts'
import { NarvikError } from '../../errors.ts'
import { ROOM_LOOK_MS } from '../../limits.ts'
import type { Logger } from '../../log.ts'
import { measureTree } from '../../nar/disk-usage.ts'
import type { Catalog } from '../../store/catalog.ts'
import type { Content } from '../../store/content.ts'
import type { Collection, Collector } from './collector.ts'

export interface SpaceSettings {
  /** Bytes on disk that Narvik may take for itself; null: as many as there are. */
  readonly quotaBytes: number | null
  /** Bytes free on the disk below which fetches are paused. */
  readonly minFreeBytes: number
  /** Copies that must be left elsewhere in the fleet when one is collected here. */
  readonly minCopies: number
}

export interface SpaceParts {
  readonly catalog: { readonly keeping: Pick<Catalog['keeping'], 'diskBytes' | 'setDiskBytes' | 'unmeasured'> }
  readonly content: Pick<Content, 'freeBytes' | 'catalogBytes' | 'inQuarantine' | 'imageTree'>
  readonly collector: Pick<Collector, 'collect'>
  readonly logger: Logger
}

/** Bytes on disk that are Narvik's own. */
export interface OwnBytes {
  readonly images: number
  /** What is in quarantine and nobody has claimed room for. */
  readonly quarantine: number
  /** What is claimed for images that are on their way in, whether or not it is written already. */
  readonly claimed: number
  readonly catalog: number
}

export interface ClaimOptions {
  readonly signal: AbortSignal
  /** Bytes that what is not on disk yet will take at most, where some of it is. */
  readonly missing?: number
}

interface Waiting {
  readonly signal: AbortSignal
  /** Called when the wait begins, with why, and when it is over, with null. */
  readonly onPause: (reason: string | null) => void
}

/**
 * The room on this host's disk: who may take how much. Whatever brings an image in claims the room first, by what is declared of it; where
 * the quota has none, what may go is collected. Images in place in the Nix store are not Narvik's own and take none of it.
 */
export class Space {
  readonly #parts: SpaceParts
  /** Bytes that are claimed, by the name of a directory in quarantine, or of whatever else they are for. */
  readonly #claims = new Map<string, number>()
  #settings: SpaceSettings
  #turn: Promise<unknown> = Promise.resolve()
  /** Fetches that wait for room on the disk, and why. */
  #waiting = 0
  #lastLow = ''

  constructor(parts: SpaceParts, settings: SpaceSettings) {
    this.#parts = parts
    this.#settings = settings
  }

  get settings(): SpaceSettings {
    return this.#settings
  }

  /** New settings; what is claimed stays claimed. */
  configure(settings: SpaceSettings): void {
    this.#settings = settings
  }

  /** Why fetches are paused; null where they are not. */
  get paused(): string | null {
    return this.#waiting === 0 ? null : this.#lastLow
  }

  /**
   * Claims room for what is on its way in, in place of an earlier claim by the same key: the nix32 of an image, or the name of a stage. `bytes`: what it will
   * take in all. What is in quarantine under that name is not counted besides, nor asked of the disk again. `release` ends it.
   * @throws NarvikError `over-quota`, or `disk-full` where the disk has not so much.
   */
  async claim(key: string, bytes: number, { signal, missing }: ClaimOptions): Promise<void> {
    await this.#inTurn(async () => {
      const claimed = this.#claims.get(key) ?? 0
      // Everybody waits for this walk, so it is not made for a claim that neither asks for more nor depends on it.
      const onDisk = missing === undefined && bytes <= claimed ? 0 : await this.#onDisk(key, signal)
      const all = missing === undefined ? bytes : Math.max(onDisk, Math.min(bytes, onDisk + missing))
      if (all > claimed) {
        await this.#requireQuota(all, { besides: key, signal })
        await this.#requireDisk(all - onDisk, { besides: key, signal })
      }
      this.#claims.set(key, all)
    })
  }

  release(key: string): void {
    this.#claims.delete(key)
  }

  /**
   * To be called now and then while an image comes in.
   * @throws NarvikError `over-quota` or `disk-full` where it can't go on now; what was received stays.
   */
  async check({ signal }: { signal: AbortSignal }): Promise<void> {
    const low = await this.#lowReason()
    if (low !== undefined) throw new NarvikError('disk-full', `Cannot go on receiving: ${low}`, { hint: ROOM_HINT })
    if (this.#settings.quotaBytes !== null) await this.#inTurn(() => this.#requireQuota(0, { signal }))
  }

  /** Whether the disk is nearly full. */
  async isLow(): Promise<boolean> {
    return await this.#lowReason() !== undefined
  }

  /** Resolves when the disk is no longer nearly full; at once where it is not. */
  async untilRoom({ signal, onPause }: Waiting): Promise<void> {
    const first = await this.#lowReason()
    if (first === undefined) return
    if (this.#waiting++ === 0) this.#parts.logger.warn('fetches are paused', { reason: first })
    try {
      for (let low: string | undefined = first; low !== undefined; low = await this.#lowReason()) {
        this.#lastLow = low
        onPause(low)
        await delay(ROOM_LOOK_MS, undefined, { signal }).catch(() => { signal.throwIfAborted() })
      }
    } finally {
      if (--this.#waiting === 0) this.#parts.logger.info('fetches are no longer paused')
    }
    onPause(null)
  }

  /** Collects what may go; see Collector. */
  async collect({ need, dryRun, signal }: { need: number | 'all', dryRun: boolean, signal: AbortSignal }): Promise<Collection> {
    const { minCopies } = this.#settings
    return this.#inTurn(() => this.#parts.collector.collect({ need, minCopies, dryRun, signal }))
  }

  /** What Narvik takes now; trees that were not measured yet are. */
  async ownBytes({ besides, signal }: { besides?: string, signal: AbortSignal }): Promise<OwnBytes> {
    const { catalog, content } = this.#parts
    for (const narHash of catalog.keeping.unmeasured()) {
      const { diskBytes } = await measureTree(content.imageTree(narHash), { signal })
      catalog.keeping.setDiskBytes(narHash, diskBytes)
    }
    const unclaimed = (await content.inQuarantine()).filter(path => !this.#claims.has(basename(path)) && basename(path) !== besides)
    let quarantine = 0
    for (const path of unclaimed) quarantine += (await measureTree(path, { signal })).diskBytes
    const claims = [...this.#claims].filter(([key]) => key !== besides)
    return {
      images: catalog.keeping.diskBytes,
      quarantine,
      claimed: claims.reduce((sum, [, bytes]) => sum + bytes, 0),
      catalog: await content.catalogBytes(),
    }
  }

  async #requireQuota(bytes: number, { besides, signal }: { besides?: string, signal: AbortSignal }): Promise<void> {
    const { quotaBytes, minCopies } = this.#settings
    if (quotaBytes === null) return
    const missing = async (): Promise<number> => total(await this.ownBytes({ signal, ...(besides === undefined ? {} : { besides }) })) + bytes - quotaBytes
    const need = await missing()
    if (need <= 0) return
    const { kept } = bytes > quotaBytes ? { kept: [] } : await this.#parts.collector.collect({ need, minCopies, signal })
    const still = await missing()
    if (still <= 0) return
    const last = kept[0] === undefined ? '' : `; of what is left, ${kept[0].narHash.toSri()} stays because ${kept[0].reason}`
    const action = bytes === 0 ? 'go on receiving' : `take ${formatBytes(bytes)} more`
    throw new NarvikError('over-quota', `Cannot ${action}: found ${formatBytes(still)} too few under the quota of ${formatBytes(quotaBytes)}, and nothing more that may be collected${last}`, {
      hint: 'See `narvik du` for what takes how much, and `narvik gc --dry-run` for what may go; remove images, unpin some, or raise space.quota',
    })
  }

  async #requireDisk(bytes: number, { besides, signal }: { besides: string, signal: AbortSignal }): Promise<void> {
    if (bytes <= 0) return
    const free = await this.#parts.content.freeBytes()
    const promised = await this.#promised(free - bytes, { besides, signal })
    if (free - promised >= bytes) return
    const others = promised === 0 ? '' : `, ${formatBytes(promised)} of them promised to others`
    throw new NarvikError('disk-full', `Cannot receive ${formatBytes(bytes)}: found ${formatBytes(free)} free in the data directory${others}, needed ${formatBytes(bytes)}`, { hint: ROOM_HINT })
  }

  /** Bytes that others have claimed and not written. Only where that matters to `spare` bytes it is looked at what they have written. */
  async #promised(spare: number, { besides, signal }: { besides: string, signal: AbortSignal }): Promise<number> {
    const claims = [...this.#claims].filter(([key]) => key !== besides)
    let promised = claims.reduce((sum, [, bytes]) => sum + bytes, 0)
    for (const [key, bytes] of claims) {
      if (promised <= spare) break
      promised -= Math.min(bytes, await this.#onDisk(key, signal))
    }
    return promised
  }

  /** What is in quarantine under a name. */
  async #onDisk(key: string, signal: AbortSignal): Promise<number> {
    const path = (await this.#parts.content.inQuarantine()).find(each => basename(each) === key)
    return path === undefined ? 0 : (await measureTree(path, { signal })).diskBytes
  }

  async #lowReason(): Promise<string | undefined> {
    const { minFreeBytes } = this.#settings
    if (minFreeBytes === 0) return undefined
    const free = await this.#parts.content.freeBytes()
    return free >= minFreeBytes ? undefined : `found ${formatBytes(free)} free on the disk, needed ${formatBytes(minFreeBytes)} (space.min_free)`
  }

  /** Two claims at once would both find the room that is there for one. */
  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(work, work)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

const ROOM_HINT = 'Collect images with `narvik gc --free BYTES`, remove some with `narvik rm`, or make room on the disk'

export function total({ images, quarantine, claimed, catalog }: OwnBytes): number {
  return images + quarantine + claimed + catalog
}
