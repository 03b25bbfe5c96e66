import { messageOf } from '../errors.ts'
import { newestChange } from '../nar/newest-change.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { withdrawDamaged } from './settle.ts'
import { handleDamage } from './verify-image.ts'

/**
 * Finds images whose tree in the Nix store was altered while the daemon was not there to see it, without reading them:
 * by their change times. They are quarantined, to be judged anew, since a change need not be one of the bytes: `nix store
 * optimise` links files together.
 */
export async function checkForChanges(context: TaskContext): Promise<void> {
  for (const row of inPlace(context)) {
    const { storePath, narHash } = row
    if (row.newestChange === null || storePath === null) continue
    try {
      if (await newestChange(storePath) <= row.newestChange) continue
    } catch (error) {
      context.logger.warn('cannot look at a store path', { narHash: narHash.toSri(), storePath, reason: messageOf(error) })
    }
    await withdrawDamaged(context, row, `Something changed in ${storePath} after it was proven`)
  }
}

/** Asks Nix whether the paths of all images in its store are still valid; those that are not will not stay. */
export async function checkRegistrations(context: TaskContext, signal: AbortSignal): Promise<void> {
  const { pathInfos, settings, logger } = context
  if (!settings.useNix) return
  const rows = new Map(inPlace(context).map(row => [row.storePath ?? '', row]))
  try {
    for (const [path, info] of await pathInfos.get([...rows.keys()], { signal })) {
      const row = rows.get(path)
      if (row === undefined || info?.narHash.equals(row.narHash) === true) continue
      handleDamage(context, row, info === null ? `Nix does not have ${path} any more` : `Nix has another image as ${path} now: ${info.narHash.toSri()}`)
    }
  } catch (error) {
    if (!signal.aborted) logger.warn('cannot ask Nix for the images in its store', { reason: messageOf(error) })
  }
}

function inPlace({ catalog }: TaskContext): ImageRow[] {
  return catalog.list({ state: 'verified' }).filter(({ place }) => place === 'nix-store')
}
