import { messageOf } from '../errors.ts'
import type { ImageRow } from '../store/image-row.ts'
import { memberAt } from './closure.ts'
import type { TaskContext } from './context.ts'
import { resumeClosures } from './fetch-closure.ts'
import { resumeFetch } from './fetch-image.ts'
import { makeMissingManifests, settleQuarantined } from './verify-image.ts'

/** Milliseconds between two looks at the images that are wanted and that nobody sends. */
const LOOK_INTERVAL_MS = 10_000

/**
 * Takes up what an earlier run of the daemon, or a lack of providers, has left: judges what is quarantined, makes the manifests that are
 * missing, and goes on with what is wanted, now and whenever a provider may have come back. Returns how to stop.
 */
export function resumeWork(context: TaskContext): () => void {
  for (const row of context.catalog.list({ state: 'quarantined' })) {
    if (waitsForOthers(context, row)) continue
    settleQuarantined(context, row).catch((error: unknown) => {
      context.logger.warn('cannot judge a quarantined image', { narHash: row.narHash.toSri(), reason: messageOf(error) })
    })
  }
  void makeMissingManifests(context)
  const look = (): void => { resumeWanted(context) }
  look()
  const timer = setInterval(look, LOOK_INTERVAL_MS)
  const unwatch = context.node.onPeer(look)
  return () => {
    clearInterval(timer)
    unwatch()
  }
}

/** Whether the fetch of a closure let it wait for what it refers to; that goes on with it in its turn. */
function waitsForOthers({ catalog }: TaskContext, { source, storePath, references }: ImageRow): boolean {
  if (source !== 'fetch' || catalog.closures.list().length === 0) return false
  return references.some(reference => reference !== storePath && memberAt(catalog, reference)?.row.state !== 'verified')
}

/** An image whose closure is wanted comes last of it. */
function resumeWanted(context: TaskContext): void {
  resumeClosures(context)
  const closures = new Set(context.catalog.closures.list().map(narHash => narHash.toNix32()))
  for (const { narHash } of context.catalog.list({ state: 'wanted' })) if (!closures.has(narHash.toNix32())) resumeFetch(context, narHash)
}
