import { NarvikError } from '../errors.ts'
import type { Ref } from '../image/ref.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { requireImage } from './refs.ts'

/**
 * Forgets an image in any state, with its files; a tree in the Nix store stays there. A fetch of it is given up.
 * Answers with the image as it was.
 */
export async function removeImage(context: TaskContext, { ref }: { ref: Ref }): Promise<ImageRow> {
  const { catalog, jobs, closures, announcer } = context
  const { narHash } = requireImage(catalog, ref)
  const reason = new NarvikError('interrupted', `Cannot go on with ${narHash.toSri()}: it was removed on request`)
  closures.abort(narHash, ['closure'], reason)
  jobs.abort(narHash, ['fetch', 'resume', 'verify'], reason)
  const job = jobs.run('remove', narHash, async () => {
    const row = catalog.get(narHash)
    if (row === undefined) throw new NarvikError('not-found', `Cannot remove ${narHash.toSri()}: it was removed meanwhile`)
    announcer.withdraw(narHash)
    try {
      await dropImage(context, row, 'removed on request')
      return row
    } catch (error) {
      // It does not go after all, for instance because the disk fails, and the fleet learns of it again.
      const left = catalog.get(narHash)
      if (left?.state === 'verified') announcer.announce(left)
      throw error
    }
  })
  return job.result
}

/** Forgets an image that is no longer announced, with its files; to be called from a job on it. */
export async function dropImage({ catalog, content, logger }: Pick<TaskContext, 'catalog' | 'content' | 'logger'>, { narHash, name }: ImageRow, reason: string): Promise<void> {
  if (name !== null) await content.unlink(name)
  // The row goes first: a file without a row is swept up at the next start, a row without its file would be a lie.
  catalog.remove(narHash, reason)
  await content.discard(narHash)
  await content.roots.remove(narHash)
  logger.info('removed', { narHash: narHash.toSri(), name, reason })
}
