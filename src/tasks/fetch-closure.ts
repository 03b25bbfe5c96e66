import { isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { ImageRow } from '../store/image-row.ts'
import { ClosureFetch } from './closure-fetch.ts'
import { findClosure, memberOf } from './closure.ts'
import type { TaskContext } from './context.ts'
import { handOver, resolveImage, want, type FetchRequest, type Wish } from './fetch-image.ts'
import type { Job } from './jobs.ts'
import { checkName } from './refs.ts'
import { waitFor } from './wait-for.ts'

/**
 * Brings an image with everything that it refers to and that is not here: dependencies first, the image itself last.
 * However many callers ask for it, it is fetched once; a caller that gives up leaves it running, and a restart of the daemon goes on
 * with it. When it fails, what was verified stays, and the next call goes on from there.
 */
export async function fetchClosure(context: TaskContext, request: FetchRequest): Promise<ImageRow> {
  const { narHash, askedBy, published } = await resolveImage(context, request.ref, request.signal)
  if (request.name !== undefined) checkName(context.catalog, request.name, narHash)
  if (!await isWhole(context, narHash)) await waitFor(joinClosure(context, { narHash, name: request.name, askedBy, published, priority: request.priority }), request)
  const row = context.catalog.get(narHash)
  if (row === undefined) throw new NarvikError('not-found', `Cannot fetch ${narHash.toSri()}: it was removed meanwhile`)
  return handOver(context, row, { askedBy, published, name: request.name })
}

/** Goes on with the closures that an earlier run of the daemon, or a lack of providers, has left. */
export function resumeClosures(context: TaskContext): void {
  for (const narHash of context.catalog.closures.list()) {
    if (context.closures.find(narHash) !== undefined) continue
    context.closures.run('closure', narHash, job => pursue(context, job, { fresh: false })).result.catch((error: unknown) => {
      context.logger.debug('the fetch of a closure waits', { narHash: narHash.toSri(), reason: messageOf(error) })
    })
  }
}

/** The fetch of the closure that is under way, or a new one. */
function joinClosure(context: TaskContext, wish: Wish): Job<unknown> {
  const { catalog, closures } = context
  const running = closures.find(wish.narHash)
  if (running !== undefined) return running
  return closures.run('closure', wish.narHash, job => {
    const fresh = want(context, wish)
    catalog.closures.add(wish.narHash)
    return pursue(context, job, { fresh })
  })
}

async function pursue(context: TaskContext, job: Job<unknown>, { fresh }: { fresh: boolean }): Promise<void> {
  const { catalog, content } = context
  const { narHash } = job
  try {
    if (!await isWhole(context, narHash)) await new ClosureFetch(context, job).run()
    catalog.closures.remove(narHash)
  } catch (error) {
    const row = catalog.get(narHash)
    if (row === undefined || isNarvikError(error, 'interrupted') || (!fresh && isPassing(error))) throw error
    context.logger.warn('gave up the fetch of a closure', { narHash: narHash.toSri(), reason: messageOf(error) })
    catalog.closures.remove(narHash)
    if (fresh && row.state === 'wanted' && row.manifestDigest === null) {
      catalog.remove(narHash, messageOf(error))
      await content.discard(narHash)
    }
    throw error
  }
}

/** Whether it may do better later, when other peers are there. */
function isPassing(error: unknown): boolean {
  return isNarvikError(error, 'no-provider', 'peer-failed', 'timed-out')
}

async function isWhole({ catalog }: TaskContext, narHash: NarHash): Promise<boolean> {
  const row = catalog.get(narHash)
  const root = row?.state === 'verified' ? memberOf(catalog, row) : undefined
  return root !== undefined && (await findClosure(catalog, root)).missing.length === 0
}
