import { messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'

type Parts = Pick<TaskContext, 'nix' | 'content' | 'catalog' | 'logger' | 'settings'>

/**
 * Keeps Nix's garbage collector away from a store path, on behalf of an image. Answers null, or why it can't, which
 * nobody fails over: an image that goes all the same is found out and withdrawn.
 */
export async function protect({ nix, content, logger }: Pick<Parts, 'nix' | 'content' | 'logger'>, narHash: NarHash, storePath: string, signal?: AbortSignal): Promise<string | null> {
  try {
    await nix.addRoot(content.roots.path(narHash), storePath, { signal })
    return null
  } catch (error) {
    if (signal?.aborted === true) throw error
    logger.warn('cannot protect a store path from the garbage collector', { storePath, reason: messageOf(error) })
    return `Nix's garbage collector may remove it: ${messageOf(error)}`
  }
}

/** Makes the root of an image what its row asks for: its store path while it is, or may become, verified there, else none. */
export async function alignRoot(parts: Parts, narHash: NarHash, signal?: AbortSignal): Promise<void> {
  const { catalog, content, nix } = parts
  const wanted = protectedPath(catalog.get(narHash))
  const target = await content.roots.target(narHash)
  if (wanted === null) {
    if (target !== undefined) await content.roots.remove(narHash)
    return
  }
  if (target !== wanted || !await nix.hasRoot(content.roots.path(narHash))) await protect(parts, narHash, wanted, signal)
}

/** Makes every root anew that is missing, and removes those of images that are gone; for the start. */
export async function alignRoots(parts: Parts, signal: AbortSignal): Promise<void> {
  const { catalog, content, settings, logger } = parts
  const inPlace = settings.useNix ? catalog.list().filter(row => protectedPath(row) !== null) : []
  const left = settings.useNix ? await content.roots.list() : []
  const all = new Map([...inPlace.map(({ narHash }) => narHash), ...left].map(narHash => [narHash.toNix32(), narHash]))
  await Promise.all(Array.from(all.values(), async narHash => {
    await alignRoot(parts, narHash, signal).catch((error: unknown) => {
      if (signal.aborted) return
      logger.warn('cannot see to the root of an image', { narHash: narHash.toSri(), reason: messageOf(error) })
    })
  }))
}

function protectedPath(row: ImageRow | undefined): string | null {
  if (row?.place !== 'nix-store' || row.state === 'rejected') return null
  return row.storePath
}
