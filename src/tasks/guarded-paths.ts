import { realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { NarvikError } from '../errors.ts'

/** What the daemon may open and no client of it should get at. */
export interface GuardedPaths {
  /** Files and directories whose contents are for this host alone: its keys, the catalog, what is not proven yet. */
  readonly secrets: readonly string[]
  /** Where nobody but the daemon writes. */
  readonly dataDir: string
}

/**
 * Who may speak to the daemon may have it read whatever it can, and send it to the fleet: not its own secrets.
 * @throws NarvikError `refused` where the path is one of them, in one of them, or has one of them below it.
 */
export async function checkImportable({ secrets }: GuardedPaths, path: string): Promise<void> {
  const [place, ...places] = await Promise.all([path, ...secrets].map(placeOf))
  for (const secret of places) {
    if (place === undefined || !(isWithin(place, secret) || isWithin(secret, place))) continue
    throw new NarvikError('refused', `Cannot import ${path}: found what is for this host alone, its keys or its catalog, needed a tree that others may have`)
  }
}

/** @throws NarvikError `refused` where the path is in the daemon's own directory. */
export async function checkExportable({ dataDir }: GuardedPaths, dest: string): Promise<void> {
  const [place, own] = await Promise.all([dest, dataDir].map(placeOf))
  if (place === undefined || own === undefined || !isWithin(place, own)) return
  throw new NarvikError('refused', `Cannot export to ${dest}: found a place in the daemon's own directory ${dataDir}, needed one outside`)
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`)
}

/** Where a path leads: the directory that it is in without links; the last part may be one, or not be there. */
async function placeOf(path: string): Promise<string> {
  const parent = await realpath(dirname(path)).catch(() => dirname(path))
  return path === '/' ? '/' : join(parent, basename(path))
}
