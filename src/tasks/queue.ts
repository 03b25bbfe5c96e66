import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Ref } from '../image/ref.ts'
import type { TaskContext } from './context.ts'
import { requireImage } from './refs.ts'

/** The images that wait for their turn to be received, the next one first. */
export function describeQueue({ queue, catalog }: Pick<TaskContext, 'queue' | 'catalog'>) {
  return queue.list().map(({ narHash, priority, since }, index) => ({
    position: index + 1, narHash: narHash.toSri(), name: catalog.get(narHash)?.name ?? null, priority, since: since.toISOString(),
  }))
}

/**
 * Puts an image that waits at another position, 1 being the next. Answers with the queue as it is then.
 * @throws NarvikError `conflict` where it does not wait.
 */
export function moveInQueue(context: Pick<TaskContext, 'queue' | 'catalog'>, { ref, position }: { readonly ref: Ref, readonly position: number }) {
  const { catalog, queue } = context
  const { narHash } = requireImage(catalog, ref)
  const priority = queue.move(narHash, position)
  if (priority === undefined) throw new NarvikError('conflict', `Cannot move ${narHash.toSri()}: found it not in the queue, needed it waiting`, { hint: 'See `narvik queue` for what waits' })
  catalog.keeping.setPriority(narHash, priority)
  return describeQueue(context)
}

/** Puts down how urgent an image is, also where it waits already. */
export function setPriority({ catalog, queue }: Pick<TaskContext, 'queue' | 'catalog'>, narHash: NarHash, priority: number): void {
  catalog.keeping.setPriority(narHash, priority)
  queue.setPriority(narHash, priority)
}
