import { NarvikError } from '../errors.ts'
import type { Ref } from '../image/ref.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { dropImage } from './remove-image.ts'
import { requireImage } from './refs.ts'

/**
 * Gives up a fetch, for everybody who waits for it, and forgets the image with what was received of it. Answers with the image as it was.
 * @throws NarvikError `conflict` where the image is not being fetched: what is here already is not for this to remove.
 */
export async function cancelFetch(context: TaskContext, { ref }: { ref: Ref }): Promise<ImageRow> {
  const { catalog, jobs, closures } = context
  const before = requireImage(catalog, ref)
  const { narHash, state } = before
  const isFetched = closures.find(narHash) !== undefined || jobs.list().some(job => job.narHash.equals(narHash) && (job.kind === 'fetch' || job.kind === 'resume'))
  if (state === 'verified' || (!isFetched && state !== 'wanted')) {
    throw new NarvikError('conflict', `Cannot cancel ${narHash.toSri()}: found it ${state}, needed a fetch under way`, { hint: 'To remove an image that is here: narvik rm' })
  }
  const reason = new NarvikError('cancelled', `Cannot go on fetching ${narHash.toSri()}: it was cancelled`)
  closures.abort(narHash, ['closure'], reason)
  jobs.abort(narHash, ['fetch', 'resume'], reason)
  return jobs.run('remove', narHash, async () => {
    const row = catalog.get(narHash)
    if (row?.state === 'verified') throw new NarvikError('conflict', `Cannot cancel ${narHash.toSri()}: found it verified meanwhile, needed a fetch under way`)
    if (row !== undefined) await dropImage(context, row, 'cancelled on request')
    return before
  }).result
}
