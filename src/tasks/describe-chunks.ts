import type { ChunkSet } from '../image/chunk-set.ts'
import type { Ref } from '../image/ref.ts'
import { MAX_TOLD_CELLS } from '../limits.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { requireImage } from './refs.ts'

const FULL = 255

/** How much of an image is here, and where in it. Of one that comes in a single stream it is a part from the start. */
export function describeChunks({ catalog, receiving, jobs }: Pick<TaskContext, 'catalog' | 'receiving' | 'jobs'>, ref: Ref) {
  const row = requireImage(catalog, ref)
  const { state, narSize } = row
  const narHash = row.narHash.toSri()
  const job = jobs.find(row.narHash)
  const received = job?.progress.phase === 'receiving' ? job.progress.bytes : 0
  const image = state === 'receiving' ? receiving.get(row.narHash) : undefined
  if (image !== undefined) {
    const { have } = image
    return { narHash, state, chunks: { count: have.capacity, proven: have.size }, bytes: received, totalBytes: narSize, cells: encode(cellsOf(have)) }
  }
  const bytes = isWhole(row) ? narSize ?? 0 : received
  return { narHash, state, chunks: null, bytes, totalBytes: narSize, cells: encode(narSize === null ? [] : filledTo(bytes, narSize)) }
}

/** Rejected bytes are none of the image. */
function isWhole({ state }: ImageRow): boolean {
  return state === 'verified' || state === 'quarantined'
}

function cellsOf(have: ChunkSet): number[] {
  const count = Math.min(have.capacity, MAX_TOLD_CELLS)
  return Array.from({ length: count }, (_, cell) => {
    const [start, end] = [Math.floor(cell * have.capacity / count), Math.floor((cell + 1) * have.capacity / count)]
    return shade(have.countBetween(start, end), end - start)
  })
}

function filledTo(bytes: number, narSize: number): number[] {
  const size = Math.max(Math.ceil(narSize / MAX_TOLD_CELLS), 16 * 1024)
  return Array.from({ length: Math.ceil(narSize / size) }, (_, cell) => {
    const length = Math.min(size, narSize - cell * size)
    return shade(Math.min(Math.max(bytes - cell * size, 0), length), length)
  })
}

/** Only what is empty is 0, and only what is full is 255. */
function shade(part: number, whole: number): number {
  if (part === 0 || part === whole) return part === 0 ? 0 : FULL
  return Math.min(Math.max(Math.round(FULL * part / whole), 1), FULL - 1)
}

function encode(cells: readonly number[]): string {
  return Buffer.from(cells).toString('base64')
}
