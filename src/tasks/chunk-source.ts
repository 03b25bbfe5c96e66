import { messageOf, NarvikError } from '../errors.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { type ChunkRun, ChunkSet } from '../image/chunk-set.ts'
import { decodeManifest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { Layout } from '../nar/layout.ts'
import type { ChunkHolding, ChunkSource } from '../p2p/protocol.ts'
import { isDamage } from './read-run.ts'
import { served, type ServeParts } from './serve.ts'
import { readRun } from './read-run.ts'

/** What swarms get from this host: the chunks of verified images, and those that are proven of images that are being received. */
export function createChunkSource(parts: ServeParts): ChunkSource {
  const kept = new Map<string, WeakRef<VerifiedImage>>()
  return {
    hold(narHash, manifestDigest) {
      if (parts.uses.isLeaving(narHash)) return undefined
      const arriving = parts.receiving.get(narHash)
      if (arriving?.manifestDigest === manifestDigest && parts.catalog.get(narHash)?.isPrivate === false) return arriving
      if (served(parts.catalog, narHash)?.manifestDigest !== manifestDigest) return undefined
      const key = `${narHash.toNix32()} ${manifestDigest}`
      const known = kept.get(key)?.deref()
      if (known !== undefined && !known.gone.aborted) return known
      const manifest = parts.catalog.manifest(narHash)
      if (manifest === undefined) return undefined
      const decoded = decodeManifest(manifest)
      if (decoded.chunks.isNone) return undefined
      const image = new VerifiedImage(parts, narHash, Layout.describedBy(decoded), decoded.chunks)
      for (const [other, reference] of kept) if (reference.deref() === undefined) kept.delete(other)
      kept.set(key, new WeakRef(image))
      return image
    },
  }
}

/** A verified image, for as long as it is verified: looked at before each read. */
class VerifiedImage implements ChunkHolding {
  readonly chunks: ChunkList
  readonly have: ChunkSet
  readonly #parts: ServeParts
  readonly #narHash: NarHash
  readonly #layout: Layout
  readonly #gone = new AbortController()

  constructor(parts: ServeParts, narHash: NarHash, layout: Layout, chunks: ChunkList) {
    this.#parts = parts
    this.#narHash = narHash
    this.#layout = layout
    this.chunks = chunks
    this.have = ChunkSet.full(chunks.count)
  }

  get gone(): AbortSignal {
    return this.#gone.signal
  }

  onAdded(): () => void {
    return () => undefined
  }

  async read(run: ChunkRun, options: { signal: AbortSignal }): Promise<Uint8Array> {
    const { catalog, content, uses } = this.#parts
    const row = uses.isLeaving(this.#narHash) ? undefined : served(catalog, this.#narHash)
    const tree = row === undefined ? null : content.visiblePath(row)
    if (row === undefined || tree === null) {
      this.#gone.abort()
      throw new NarvikError('not-found', `Cannot serve ${this.#narHash.toSri()}: it is not served here any more`)
    }
    using _held = uses.hold(this.#narHash)
    const since = row.newestChange === null ? {} : { unchangedSince: row.newestChange }
    try {
      return await readRun(tree, this.#layout, this.chunks, run, { ...options, ...since })
    } catch (error) {
      // A file that is gone or of another size is damage that the whole fleet would otherwise be sent.
      if (isDamage(error)) this.damaged(run.first)
      if (!options.signal.aborted) this.#parts.logger.warn('cannot serve', { narHash: this.#narHash.toSri(), reason: messageOf(error) })
      throw error
    }
  }

  damaged(chunk: number): void {
    this.#gone.abort()
    const row = this.#parts.catalog.get(this.#narHash)
    if (row?.state === 'verified') this.#parts.onDamage(row, `chunk ${chunk}, at byte ${this.chunks.offset(chunk)} of its NAR, is not what was proven`)
  }

  met(): void {
    // Who asks for a verified image has nothing that this host needs.
  }
}
