import { z } from 'zod'
import { ChunkSet } from '../../image/chunk-set.ts'
import type { Word } from '../introduction.ts'
import { bookKept, type BookKept } from './books.ts'

const swarmProgress = z.strictObject({
  kind: z.literal('chunks'),
  offset: z.int().min(0),
  manifestDigest: z.string().length(64),
  voucher: z.string().max(128).nullable(),
  recordBy: z.string().max(128).nullable(),
  /** A bit for each chunk, as base64. */
  proven: z.base64(),
  books: bookKept,
})

/** What of an image is proven and on the disk, and where it came from. */
export interface SwarmProgress {
  readonly word: Word
  readonly proven: ChunkSet
  readonly books: BookKept
}

/** What the progress file in quarantine holds. `offset`: bytes that are on disk. */
export function encodeProgress({ word, proven, books }: SwarmProgress, offset: number) {
  return { kind: 'chunks', offset, ...word, proven: Buffer.from(proven.toBytes()).toString('base64'), books }
}

/** Reads a progress file; undefined where it is none of an image of `count` chunks received in chunks. */
export function decodeProgress(content: unknown, count: number): SwarmProgress | undefined {
  const result = swarmProgress.safeParse(content)
  if (!result.success) return undefined
  const { manifestDigest, voucher, recordBy, proven, books } = result.data
  const set = ChunkSet.fromBytes(Buffer.from(proven, 'base64'), count)
  return set && { word: { manifestDigest, voucher, recordBy }, proven: set, books }
}
