import type { Ref } from '../image/ref.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { requireImage } from './refs.ts'

/** Makes an image one that is served to nobody by any protocol, or makes it one like others again. */
export function makePrivate({ catalog, announcer, uses, receiving, logger }: Pick<TaskContext, 'catalog' | 'announcer' | 'uses' | 'receiving' | 'logger'>, { ref, private: isPrivate }: { readonly ref: Ref, readonly private: boolean }): ImageRow {
  const row = catalog.setPrivate(requireImage(catalog, ref).narHash, isPrivate)
  if (isPrivate) {
    uses.cut(row.narHash)
    receiving.get(row.narHash)?.end()
  }
  announcer.announce(row)
  logger.info(isPrivate ? 'made an image private' : 'made an image no longer private', { narHash: row.narHash.toSri() })
  return row
}
