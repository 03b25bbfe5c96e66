import { isNarvikError } from '../errors.ts'
import { runBytes } from '../image/chunk-check.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import type { ChunkRun } from '../image/chunk-set.ts'
import type { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'

/** The bytes of a run of chunks, as they are on disk. */
export async function readRun(
  tree: string, layout: Layout, chunks: ChunkList, run: ChunkRun, options: { readonly signal?: AbortSignal, readonly unchangedSince?: number },
): Promise<Uint8Array> {
  const parts: Buffer[] = []
  for await (const part of readRange(tree, layout, chunks.offset(run.first), runBytes(chunks, run), options)) parts.push(part)
  // Nearly always it is one, which nobody else has.
  const [only = Buffer.alloc(0)] = parts
  return parts.length <= 1 ? only : Buffer.concat(parts)
}

/** Undefined where the files are not what they should be. */
export function readIfThere(reading: Promise<Uint8Array>): Promise<Uint8Array | undefined> {
  return reading.catch((error: unknown) => {
    if (isDamage(error)) return undefined
    throw error
  })
}

/** Whether reading a tree failed since its files are not what they should be: gone, changed, or not to be read. */
export function isDamage(error: unknown): boolean {
  return isNarvikError(error, 'changed-while-reading', 'not-found', 'unreadable')
}
