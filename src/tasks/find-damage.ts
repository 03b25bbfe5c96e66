import { isChunk } from '../image/chunk-check.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../image/chunk-set.ts'
import { FILE_BUFFER_BYTES } from '../limits.ts'
import { chunkTree } from '../nar/hash-tree.ts'
import type { Layout } from '../nar/layout.ts'
import { readIfThere, readRun } from './read-run.ts'

/** Chunks that are read at once where they are looked at one by one. */
const CHECK_CHUNKS = Math.max(1, Math.floor(FILE_BUFFER_BYTES / (64 * 1024)))

export interface DamageOptions {
  readonly signal: AbortSignal
  readonly onProgress?: (bytes: number) => void
}

/**
 * The chunks that the tree has not, or not as they should be; it has the shape of the layout. All of it is read in another thread; where its chunks are
 * cut otherwise than they should be, and around that, they are looked at one by one.
 */
export async function findDamage(tree: string, plan: Plan, options: DamageOptions): Promise<ChunkSet> {
  const { chunks } = plan
  const { chunks: found } = await chunkTree(tree, options)
  const damaged = new ChunkSet(chunks.count)
  const unsure = new ChunkSet(chunks.count)
  let other = 0
  for (let chunk = 0; chunk < chunks.count; chunk++) {
    while (other < found.count && found.offset(other) < chunks.offset(chunk)) other++
    const isSame = found.offset(other) === chunks.offset(chunk) && found.length(other) === chunks.length(chunk)
    if (!isSame) unsure.add(chunk)
    else if (Buffer.compare(found.hash(other), chunks.hash(chunk)) !== 0) damaged.add(chunk)
  }
  for (const chunk of (await findWrongChunks(tree, plan, unsure, options.signal)).from(0)) damaged.add(chunk)
  return damaged
}

/** The chunks of a set that are not on disk as they should be; each is read and held against its hash. */
export async function findWrongChunks(tree: string, plan: Plan, set: ChunkSet, signal: AbortSignal): Promise<ChunkSet> {
  const { chunks } = plan
  const wrong = new ChunkSet(chunks.count)
  const look = async (run: ChunkRun): Promise<void> => {
    const bytes = await readIfThere(readRun(tree, plan.layout, chunks, run, { signal }))
    const start = chunks.offset(run.first)
    for (const chunk of chunksOf([run])) {
      if (bytes !== undefined && isChunk(chunks, chunk, bytes.subarray(chunks.offset(chunk) - start, chunks.offset(chunk + 1) - start))) continue
      // Of a run that can't be read whole some chunks may be right.
      if (bytes === undefined && run.count > 1) await look({ first: chunk, count: 1 })
      else wrong.add(chunk)
    }
  }
  for (const run of [...set.runs(CHECK_CHUNKS)]) await look(run)
  return wrong
}

interface Plan {
  readonly layout: Layout
  readonly chunks: ChunkList
}
