import { measureTree, type DiskUsage } from '../nar/disk-usage.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { total } from './space/space.ts'

type Place = 'content' | 'quarantine' | 'nix-store'
type Parts = Pick<TaskContext, 'catalog' | 'content' | 'space'>

/** What takes how much, measured now. */
export async function describeUsage(parts: Parts, options: { readonly signal: AbortSignal }) {
  const { catalog, content, space } = parts
  const own = await space.ownBytes(options)
  const { quotaBytes, minFreeBytes } = space.settings
  const images = []
  for (const row of catalog.list()) {
    const { place, usage } = await measure(parts, row, options)
    if (usage.diskBytes > 0) images.push(present(row, place, usage))
  }
  return {
    quotaBytes,
    usedBytes: total(own),
    claimedBytes: own.claimed,
    catalogBytes: own.catalog,
    freeBytes: await content.freeBytes(),
    minFreeBytes,
    paused: space.paused,
    images: images.sort((a, b) => b.diskBytes - a.diskBytes),
  }
}

async function measure({ content }: Parts, row: ImageRow, options: { readonly signal: AbortSignal }): Promise<{ place: Place, usage: DiskUsage }> {
  const tree = content.visiblePath(row)
  if (tree === null) return { place: 'quarantine', usage: await measureTree(content.quarantine(row.narHash), options) }
  return { place: row.place, usage: await measureTree(tree, options) }
}

function present({ narHash, name, state, pinnedAt, usedAt }: ImageRow, place: Place, { diskBytes, apparentBytes }: DiskUsage) {
  return { narHash: narHash.toSri(), name, state, place, diskBytes, apparentBytes, pinned: pinnedAt !== null, usedAt: usedAt.toISOString() }
}
