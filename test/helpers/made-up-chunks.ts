import { blake3Of } from '../../src/image/blake3.ts'
import { runBytes } from '../../src/image/chunk-check.ts'
import { type ChunkList, ChunkListBuilder } from '../../src/image/chunk-list.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../../src/image/chunk-set.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { ChunkHolding, ChunkSource } from '../../src/p2p/protocol.ts'
import { rangeOf } from './bytes.ts'

export const MADE_UP_HASH = NarHash.fromBytes(rangeOf(0, 32))
export const MADE_UP_DIGEST = 'ab'.repeat(32)

/** Chunks of 16 KiB and more, of made-up bytes. */
export function madeUpChunks(count: number): { chunks: ChunkList, bytes: Uint8Array } {
  const lengths = Array.from({ length: count }, (_, chunk) => 16 * 1024 + 1000 * (chunk % 7))
  const bytes = Uint8Array.from(rangeOf(0, lengths.reduce((sum, length) => sum + length, 0)), (byte, index) => byte ^ (index >>> 14))
  const builder = new ChunkListBuilder()
  let at = 0
  for (const length of lengths) {
    builder.add(length, blake3Of(bytes.subarray(at, at + length)))
    at += length
  }
  return { chunks: builder.build(), bytes }
}

/** A holding whose bytes are as the test wants them. */
export class MadeUpHolding implements ChunkHolding, ChunkSource {
  readonly chunks: ChunkList
  readonly bytes: Uint8Array
  readonly have: ChunkSet
  readonly damagedChunks: number[] = []
  readonly readRuns: ChunkRun[] = []
  readonly askers: string[] = []
  readonly #gone = new AbortController()
  readonly #listeners = new Set<(run: ChunkRun) => void>()
  /** Called before each read; the read waits for it and fails where it rejects. */
  before: (run: ChunkRun) => Promise<void> | void = () => undefined

  constructor({ chunks, bytes }: { chunks: ChunkList, bytes: Uint8Array }, have: ChunkSet = ChunkSet.full(chunks.count)) {
    this.chunks = chunks
    this.bytes = Uint8Array.from(bytes)
    this.have = have
  }

  get gone(): AbortSignal {
    return this.#gone.signal
  }

  get listeners(): number {
    return this.#listeners.size
  }

  hold(narHash: NarHash, manifestDigest: string): ChunkHolding | undefined {
    return narHash.equals(MADE_UP_HASH) && manifestDigest === MADE_UP_DIGEST ? this : undefined
  }

  add(run: ChunkRun): void {
    for (const chunk of chunksOf([run])) this.have.add(chunk)
    for (const listener of this.#listeners) listener(run)
  }

  withdraw(): void {
    this.#gone.abort()
  }

  onAdded(listener: (run: ChunkRun) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  async read(run: ChunkRun): Promise<Uint8Array> {
    await this.before(run)
    this.readRuns.push(run)
    const start = this.chunks.offset(run.first)
    return Uint8Array.from(this.bytes.subarray(start, start + runBytes(this.chunks, run)))
  }

  damaged(chunk: number): void {
    this.damagedChunks.push(chunk)
  }

  met(peerId: string): void {
    this.askers.push(peerId)
  }
}
