import { messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { ImageRow } from '../store/image-row.ts'
import { NixError } from '../nix/nix-error.ts'
import { addRoots } from '../nix/roots.ts'
import type { TaskContext } from './context.ts'

type Parts = Pick<TaskContext, 'nix' | 'content' | 'catalog' | 'logger' | 'settings'>

/** An image whose tree is in the Nix store. */
export interface InStore {
  readonly narHash: NarHash
  readonly storePath: string
}

/**
 * Keeps Nix's garbage collector away from store paths, on behalf of images; one connection to Nix does it for all. Answers, by nix32
 * of the image, why it can't where it can't. Nobody fails over that: an image that goes all the same is found out and withdrawn.
 */
export async function protect({ nix, content, logger }: Pick<Parts, 'nix' | 'content' | 'logger'>, images: readonly InStore[], signal?: AbortSignal): Promise<Map<string, string>> {
  const roots = images.map(({ narHash, storePath }) => ({ link: content.roots.path(narHash), path: storePath }))
  const failures = await addRoots(nix, roots, { signal }).catch((error: unknown) => {
    signal?.throwIfAborted()
    return new Map(roots.map(({ link }) => [link, error]))
  })
  const notes = new Map<string, string>()
  for (const { narHash, storePath } of images) {
    const failure = failures.get(content.roots.path(narHash))
    if (failure === undefined) continue
    logger.warn('cannot protect a store path from the garbage collector', { storePath, reason: messageOf(failure) })
    notes.set(narHash.toNix32(), `Nix's garbage collector may remove it: ${messageOf(failure)}`)
  }
  return notes
}

/**
 * Makes the roots of images what their rows ask for: their store path while they are, or may become, verified there, else none.
 */
export async function alignRoots(parts: Parts, narHashes: readonly NarHash[], signal?: AbortSignal): Promise<void> {
  const { catalog, content, nix } = parts
  const missing: InStore[] = []
  for (const narHash of narHashes) {
    const storePath = protectedPath(catalog.get(narHash))
    const target = await content.roots.target(narHash)
    if (storePath === null && target !== undefined) await content.roots.removeLink(content.roots.path(narHash))
    else if (storePath !== null && (target !== storePath || await nix.hasRoot(content.roots.path(narHash)) !== true)) missing.push({ narHash, storePath })
  }
  await protect(parts, missing, signal)
}

/** Makes every root anew that is missing, and removes those of images that are gone; for the start. */
export async function alignAllRoots(parts: Parts, signal: AbortSignal): Promise<void> {
  const { catalog, content, settings, logger } = parts
  if (!settings.useNix) return
  try {
    const left = await content.roots.list()
    const wanted = catalog.list().filter(row => protectedPath(row) !== null).map(({ narHash }) => narHash)
    const all = new Map([...wanted, ...left].map(narHash => [narHash.toNix32(), narHash]))
    await alignRoots(parts, [...all.values()], signal)
    await alignInstalled(parts, signal)
  } catch (error) {
    if (!signal.aborted) logger.warn('cannot see to the roots of the images', { reason: messageOf(error) })
  }
}

/** What is installed stays in the Nix store for as long as the catalog has the image. */
async function alignInstalled({ catalog, content, nix, logger }: Parts, signal: AbortSignal): Promise<void> {
  const forgotten: { link: string, path: string }[] = []
  for (const { narHash, link, storePath } of await content.roots.installed()) {
    if (catalog.get(narHash) === undefined) await content.roots.removeLink(link)
    else if (await nix.hasRoot(link) !== true) forgotten.push({ link, path: storePath })
  }
  for (const [link, failure] of await addRoots(nix, forgotten, { signal })) {
    logger.warn('an installed path is not protected any more', { link, reason: messageOf(failure) })
    // It was deleted all the same, so that it is not installed.
    if (failure instanceof NixError && failure.kind === 'not-valid') await content.roots.removeLink(link)
  }
}

function protectedPath(row: ImageRow | undefined): string | null {
  if (row?.place !== 'nix-store' || row.state === 'rejected') return null
  return row.storePath
}
