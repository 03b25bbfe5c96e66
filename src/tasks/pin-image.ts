import type { Ref } from '../image/ref.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { requireImage } from './refs.ts'

/** Keeps an image from being collected, whatever room is needed, or no longer. In any state: one that is still on its way is pinned as well. */
export function pinImage({ catalog, logger }: Pick<TaskContext, 'catalog' | 'logger'>, { ref, pinned }: { ref: Ref, pinned: boolean }): ImageRow {
  const { narHash } = requireImage(catalog, ref)
  catalog.keeping.setPinned(narHash, pinned)
  logger.info(pinned ? 'pinned' : 'unpinned', { narHash: narHash.toSri() })
  return requireImage(catalog, { kind: 'nar-hash', narHash })
}
