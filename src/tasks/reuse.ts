import { setImmediate } from 'node:timers/promises'
import { messageOf } from '../errors.ts'
import { isChunk } from '../image/chunk-check.ts'
import { ChunkIndex } from '../image/chunk-index.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { decodeManifest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { isZeroChunk } from '../image/zero-chunk.ts'
import { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'
import type { TreeWriter } from '../nar/tree-writer.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { isDamage } from './read-run.ts'
import { handleDamage } from './verify-image.ts'

export interface ReuseRequest {
  /** The image that is being received; images with a like name are looked at first. */
  readonly narHash?: NarHash
  readonly layout: Layout
  readonly chunks: ChunkList
  /** Writes the tree of the layout. */
  readonly writer: TreeWriter
  readonly isMissing: (chunk: number) => boolean
  /** Told of each chunk that is in the tree now, and where it came from; waited for. */
  readonly onProven: (chunk: number, source: 'zeros' | NarHash) => Promise<void> | void
  readonly signal: AbortSignal
}

/**
 * Copies into a tree what verified images of this host have of it, and makes holes of its zeros, so that peers need not send them. One
 * manifest is looked at at a time, and every chunk is held against its hash: an image that is found damaged is judged again.
 * @throws NarvikError `invalid-nar` where a chunk that has its hash contradicts the layout; `disk-full`, `io-error`; the reason of the signal.
 */
export async function reuseLocal(context: TaskContext, request: ReuseRequest): Promise<void> {
  const { chunks, isMissing, signal } = request
  await makeZeros(request)
  const wanted = new ChunkIndex(chunks, isMissing)
  for (const { narHash } of candidates(context, request.narHash)) {
    if (wanted.size === 0) return
    signal.throwIfAborted()
    // It may have been removed, or withdrawn, while the others were read.
    const row = context.catalog.get(narHash)
    const tree = row?.state === 'verified' ? context.content.visiblePath(row) : null
    if (row === undefined || tree === null) continue
    try {
      await copyFrom(context, { row, tree }, wanted, request)
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      handleDamage(context, row, error.message)
    }
  }
}

/** Chunks that are looked up in one turn of the event loop. */
const CHUNKS_PER_TURN = 20_000

class Damage extends Error {}

async function makeZeros({ chunks, writer, isMissing, onProven, signal }: ReuseRequest): Promise<void> {
  for (let chunk = 0; chunk < chunks.count; chunk++) {
    if (chunk % CHUNKS_PER_TURN === 0) await setImmediate()
    if (!isZeroChunk(chunks, chunk) || !isMissing(chunk)) continue
    signal.throwIfAborted()
    await writer.writeZeros(chunks.offset(chunk), chunks.length(chunk))
    await onProven(chunk, 'zeros')
  }
}

/** The verified images, those first that are most likely an older version of it: of the same store path name, then of one but for its numbers, the newest first. */
function candidates({ catalog }: TaskContext, narHash: NarHash | undefined): ImageRow[] {
  const names = narHash === undefined ? new Set<string>() : namesOf(catalog.get(narHash))
  const likeness = (row: ImageRow): number => [...namesOf(row)].some(name => names.has(name)) ? 1 : 0
  return catalog.list({ state: 'verified' })
    .filter(row => row.manifestDigest !== null && narHash?.equals(row.narHash) !== true)
    .map(row => ({ row, likeness: likeness(row), time: row.verifiedAt?.getTime() ?? 0 }))
    .sort((a, b) => b.likeness - a.likeness || b.time - a.time)
    .map(({ row }) => row)
}

/** What an image is called, without the numbers in which versions differ. */
function namesOf(row: ImageRow | undefined): Set<string> {
  const storeName = row?.storePath?.replace(/^.*\/[^/-]*-/, '')
  return new Set([row?.name, storeName].flatMap(name => name === null || name === undefined ? [] : [name.replaceAll(/\d+/g, '0')]))
}

interface LocalImage {
  readonly row: ImageRow
  readonly tree: string
}

async function copyFrom(context: TaskContext, image: LocalImage, wanted: ChunkIndex, request: ReuseRequest): Promise<void> {
  const bytes = context.catalog.manifest(image.row.narHash)
  if (bytes === undefined) return
  const manifest = decodeManifest(bytes)
  const source = { ...image, layout: Layout.describedBy(manifest), chunks: manifest.chunks }
  for (let chunk = 0; chunk < source.chunks.count && wanted.size > 0; chunk++) {
    if (chunk % CHUNKS_PER_TURN === 0) await setImmediate()
    const places = wanted.take(source.chunks.hash(chunk))
    if (places.length > 0) await copyChunk(source, chunk, places, { wanted, request })
  }
}

interface Source extends LocalImage {
  readonly layout: Layout
  readonly chunks: ChunkList
}

/** Copies one chunk to every place that wants it and has not got it meanwhile. */
async function copyChunk(source: Source, chunk: number, places: readonly number[], { wanted, request }: { wanted: ChunkIndex, request: ReuseRequest }): Promise<void> {
  const { chunks, writer, isMissing, onProven, signal } = request
  if (!places.some(isMissing)) return
  let bytes: Buffer
  try {
    bytes = await readChunk(source, chunk, signal)
  } catch (error) {
    // Another image may have it whole.
    for (const place of places) wanted.add(place)
    throw error
  }
  for (const place of places) {
    if (!isMissing(place)) continue
    await writer.write(chunks.offset(place), bytes)
    await onProven(place, source.row.narHash)
  }
}

async function readChunk({ row, tree, layout, chunks }: Source, chunk: number, signal: AbortSignal): Promise<Buffer> {
  const parts: Buffer[] = []
  const since = row.newestChange === null ? {} : { unchangedSince: row.newestChange }
  try {
    for await (const part of readRange(tree, layout, chunks.offset(chunk), chunks.length(chunk), { signal, ...since })) parts.push(part)
  } catch (error) {
    if (!isDamage(error)) throw error
    throw new Damage(messageOf(error), { cause: error })
  }
  const [only] = parts
  const bytes = parts.length === 1 && only !== undefined ? only : Buffer.concat(parts)
  if (!isChunk(chunks, chunk, bytes)) throw new Damage(`Its chunk at byte ${chunks.offset(chunk)} of the NAR is not what was proven`)
  return bytes
}
