import type { NarHash } from '../image/nar-hash.ts'
import type { TaskContext } from './context.ts'

/**
 * Makes place for an import of an image that the catalog knows in a state other than verified: the tree at hand is
 * better than what a fetch has left. The journal keeps what came before.
 */
export async function clearTheWay({ catalog, content }: Pick<TaskContext, 'catalog' | 'content'>, narHash: NarHash): Promise<void> {
  if (catalog.get(narHash) === undefined) return
  catalog.remove(narHash, 'replaced by an import of the same image')
  await content.discard(narHash)
}
