import { isNarvikError } from '../errors.ts'
import { isChunk } from '../image/chunk-check.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { ChunkSet } from '../image/chunk-set.ts'
import { chunkTree } from '../nar/hash-tree.ts'
import type { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'

export interface DamageOptions {
  readonly signal: AbortSignal
  readonly onProgress?: (bytes: number) => void
}

/**
 * The chunks that the tree has not, or not as they should be; it has the shape of the layout. All of it is read in another thread; where its chunks are
 * cut otherwise than they should be, and around that, they are looked at one by one.
 */
export async function findDamage(tree: string, { layout, chunks }: { layout: Layout, chunks: ChunkList }, options: DamageOptions): Promise<ChunkSet> {
  const { chunks: found } = await chunkTree(tree, options)
  const damaged = new ChunkSet(chunks.count)
  let other = 0
  for (let chunk = 0; chunk < chunks.count; chunk++) {
    while (other < found.count && found.offset(other) < chunks.offset(chunk)) other++
    const isSame = found.offset(other) === chunks.offset(chunk) && found.length(other) === chunks.length(chunk)
    if (isSame && Buffer.compare(found.hash(other), chunks.hash(chunk)) === 0) continue
    if (isSame || !await isOnDisk(tree, { layout, chunks }, chunk, options.signal)) damaged.add(chunk)
  }
  return damaged
}

async function isOnDisk(tree: string, { layout, chunks }: { layout: Layout, chunks: ChunkList }, chunk: number, signal: AbortSignal): Promise<boolean> {
  const parts: Buffer[] = []
  try {
    for await (const part of readRange(tree, layout, chunks.offset(chunk), chunks.length(chunk), { signal })) parts.push(part)
  } catch (error) {
    if (isNarvikError(error, 'changed-while-reading', 'not-found', 'unreadable')) return false
    throw error
  }
  return isChunk(chunks, chunk, Buffer.concat(parts))
}
