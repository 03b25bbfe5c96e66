import type { ChunkList } from '../../image/chunk-list.ts'
import { type ChunkRun, ChunkSet } from '../../image/chunk-set.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import type { Layout } from '../../nar/layout.ts'
import type { ChunkHolding } from '../../p2p/protocol.ts'
import { isDamage, readRun } from '../read-run.ts'

export interface ReceivingParts {
  readonly narHash: NarHash
  readonly manifestDigest: string
  readonly layout: Layout
  readonly chunks: ChunkList
  /** Where the tree may be at the moment: it is at the first of these at which it is found. */
  readonly trees: () => Iterable<string>
}

/** An image that is being received: the chunks of it that are proven can be given on before the whole is. */
export class ReceivingImage implements ChunkHolding {
  readonly narHash: NarHash
  readonly manifestDigest: string
  readonly chunks: ChunkList
  readonly have: ChunkSet
  readonly #layout: Layout
  readonly #trees: () => Iterable<string>
  /** Where the tree was the last time. */
  #foundAt: string | undefined
  readonly #gone = new AbortController()
  readonly #listeners = new Set<(run: ChunkRun) => void>()
  /** Called with each peer that asks for chunks. */
  onMet: (peerId: string) => void = () => undefined
  /** Called where a chunk on disk is not what was written. */
  onDamage: (chunk: number) => void = () => undefined

  constructor({ narHash, manifestDigest, layout, chunks, trees }: ReceivingParts) {
    this.narHash = narHash
    this.manifestDigest = manifestDigest
    this.chunks = chunks
    this.have = new ChunkSet(chunks.count)
    this.#layout = layout
    this.#trees = trees
  }

  get gone(): AbortSignal {
    return this.#gone.signal
  }

  /** Chunks are on disk whose hashes were right as they came. */
  add(run: ChunkRun): void {
    this.have.addRun(run)
    for (const listener of this.#listeners) listener(run)
  }

  onAdded(listener: (run: ChunkRun) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  async read(run: ChunkRun, options: { signal: AbortSignal }): Promise<Uint8Array> {
    let failure: unknown
    for (const tree of this.#places()) {
      try {
        const bytes = await readRun(tree, this.#layout, this.chunks, run, options)
        this.#foundAt = tree
        return bytes
      } catch (error) {
        if (!isDamage(error)) throw error
        failure ??= error
      }
    }
    throw failure
  }

  damaged(chunk: number): void {
    this.onDamage(chunk)
    this.end()
  }

  met(peerId: string): void {
    this.onMet(peerId)
  }

  /** Nothing is given on any more. */
  end(): void {
    this.#gone.abort()
  }

  /** Where the tree may be, each place once. */
  *#places(): Generator<string> {
    const last = this.#foundAt
    if (last !== undefined) yield last
    for (const tree of this.#trees()) if (tree !== last) yield tree
  }
}

/** The images that are being received in chunks at the moment. */
export class Receiving {
  readonly #images = new Map<string, ReceivingImage>()

  get(narHash: NarHash): ReceivingImage | undefined {
    return this.#images.get(narHash.toNix32())
  }

  add(image: ReceivingImage): void {
    this.#images.set(image.narHash.toNix32(), image)
  }

  remove(image: ReceivingImage): void {
    if (this.get(image.narHash) === image) this.#images.delete(image.narHash.toNix32())
  }
}
