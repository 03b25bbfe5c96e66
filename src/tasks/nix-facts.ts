import { basename } from 'node:path'
import { messageOf, NarvikError } from '../errors.ts'
import type { Listing } from '../image/listing.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { narSizeOf } from '../nar/layout.ts'
import { tryParseStorePath } from '../nix/store-path.ts'
import type { Registration } from '../store/image-row.ts'
import type { Measurement } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'

/** What Nix knows of a path; `note` says why its metadata is absent, null where nothing is missing. */
export interface NixFacts {
  readonly info: NixPathInfo | null
  readonly note: string | null
}

/** `answered`: whether Nix said so itself, rather than that it was not asked or failed. */
export interface NixAnswer extends NixFacts {
  readonly answered: boolean
}

type Parts = Pick<TaskContext, 'nix' | 'pathInfos' | 'settings' | 'logger'>

/** Whether a path is directly in the store directory, and has the form of a store path. */
export function isStorePath(nix: TaskContext['nix'], path: string): boolean {
  return tryParseStorePath(path, nix.storeDir) !== undefined
}

/** Asks Nix about a path in its store. However Nix fails, the answer is a note, because an import goes on without. */
export async function askNix({ nix, pathInfos, settings, logger }: Parts, path: string, signal: AbortSignal | undefined): Promise<NixAnswer> {
  if (!isStorePath(nix, path)) return { info: null, note: null, answered: false }
  if (!settings.useNix) return { info: null, note: 'Nix was not asked: it is turned off in the config', answered: false }
  try {
    const info = (await pathInfos.get([path], { signal })).get(path) ?? null
    return { info, answered: true, note: info === null ? 'Nix says that the path is not valid in its store' : null }
  } catch (error) {
    if (signal?.aborted === true) throw error
    logger.warn('cannot ask Nix', { path, reason: messageOf(error) })
    return { info: null, note: messageOf(error), answered: false }
  }
}

/** What Nix says of a path, as the catalog puts it down. */
export function registrationOf({ path, references, deriver, ca, signatures }: NixPathInfo): Registration {
  return { storePath: path, references, deriver, ca, signatures, vouchedBy: 'nix' }
}

/** Drops what Nix said where its hash is not that of the bytes: nothing is announced on Nix's word alone. */
export function checkFacts(facts: NixFacts, { narHash, narSize }: Measurement): NixFacts {
  const { info } = facts
  if (info === null) return facts
  if (!info.narHash.equals(narHash)) {
    return { info: null, note: `Nix says that ${info.path} is ${info.narHash.toSri()}, its bytes are ${narHash.toSri()}; the path is corrupt in the store, or Nix lies` }
  }
  if (info.narSize !== narSize) return { info: null, note: `Nix says that the NAR of ${info.path} has ${info.narSize} bytes, it has ${narSize}` }
  return facts
}

/**
 * Adds a tree that is outside the store to it, where the settings and the store allow that, and answers with what Nix
 * then knows; null where the tree is to be copied into Narvik's own store instead.
 */
export async function addToStore({ nix, pathInfos, settings, logger }: Parts, path: string, listing: Listing, signal: AbortSignal | undefined): Promise<NixPathInfo | null> {
  if (!settings.useNix || isStorePath(nix, path) || narSizeOf(listing) > settings.storeAddMaxBytes) return null
  try {
    if (!await nix.canWriteStore()) return null
    const options = signal === undefined ? {} : { signal }
    const added = await nix.addPath(path, storeName(path), options)
    return (await pathInfos.get([added], options)).get(added) ?? null
  } catch (error) {
    if (signal?.aborted === true) throw error
    logger.warn('cannot add to the Nix store; copying instead', { path, reason: messageOf(error) })
    return null
  }
}

/** A store path's name for a file name: the characters that Nix doesn't take become dashes. */
function storeName(path: string): string {
  const name = basename(path).replace(/[^0-9a-zA-Z+\-._?=]/g, '-').replace(/^\.+/, '')
  if (name === '') throw new NarvikError('invalid-argument', `Cannot name ${JSON.stringify(path)} in the Nix store: found no usable character`)
  return name.slice(0, 211)
}
