import { messageOf } from '../errors.ts'
import type { TaskContext } from './context.ts'
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

function resumeWanted(context: TaskContext): void {
  for (const row of context.catalog.list({ state: 'wanted' })) resumeFetch(context, row.narHash)
}
