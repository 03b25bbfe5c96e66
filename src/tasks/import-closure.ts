import { NarvikError } from '../errors.ts'
import type { NixPathInfo } from '../nix/path-info.ts'
import type { ImageRow } from '../store/image-row.ts'
import { memberAt } from './closure.ts'
import type { TaskContext } from './context.ts'
import { importImage, resolveSource, type ImportRequest } from './import-image.ts'
import { isStorePath } from './nix-facts.ts'

/**
 * Imports a store path with everything that it refers to, dependencies first; the name is for the path itself. Nix is
 * asked once for all of it. What is verified here already, as Nix has it, is not read again.
 */
export async function importClosure(context: TaskContext, request: ImportRequest): Promise<ImageRow> {
  const path = await resolveSource(context, request.path)
  if (!context.settings.useNix) throw new NarvikError('refused', `Cannot import the closure of ${path}: found Nix turned off in the config, needed nix.enabled = true`)
  if (!isStorePath(context.nix, path)) {
    throw new NarvikError('invalid-argument', `Cannot import the closure of ${path}: found a path outside ${context.nix.storeDir}, needed a store path`, {
      hint: 'Only store paths refer to others; without --closure any tree can be imported',
    })
  }
  let last: ImageRow | undefined
  for (const info of await askClosure(context, path, request.signal)) last = await importMember(context, info, { ...request, path })
  if (last === undefined) throw new NarvikError('internal', `Cannot import the closure of ${path}: found it empty`)
  return last
}

/** The paths of the closure, each after those that it refers to. */
async function askClosure({ nix }: TaskContext, path: string, signal: AbortSignal | undefined): Promise<NixPathInfo[]> {
  const infos = await nix.closureInfo(path, { signal })
  const order: NixPathInfo[] = []
  const seen = new Set<string>()
  const stack: (readonly [string, 'enter' | 'leave'])[] = [[path, 'enter']]
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const info = infos.get(next[0])
    if (info === undefined) throw new NarvikError('nix-failed', `Cannot import the closure of ${path}: found that Nix leaves out ${next[0]}, needed all that is referred to`)
    if (next[1] === 'leave') order.push(info)
    if (next[1] === 'leave' || seen.has(info.path)) continue
    seen.add(info.path)
    stack.push([info.path, 'leave'])
    for (const reference of info.references) if (!seen.has(reference)) stack.push([reference, 'enter'])
  }
  return order
}

async function importMember(context: TaskContext, info: NixPathInfo, { path, name, private: isPrivate, signal, onProgress }: ImportRequest): Promise<ImageRow> {
  const isRoot = info.path === path
  const known = memberAt(context.catalog, info.path)?.row
  if (!isRoot && known?.state === 'verified' && known.narHash.equals(info.narHash)) return known
  const row = await importImage(context, {
    path: info.path, facts: { info, note: null }, ...isRoot && { name }, private: isPrivate, ...signal && { signal }, ...onProgress && { onProgress },
  })
  if (!row.narHash.equals(info.narHash)) {
    throw new NarvikError('verification-failed', `Cannot import the closure of ${path}: found that ${info.path} is ${row.narHash.toSri()}, needed ${info.narHash.toSri()} as Nix has it`, {
      hint: `It is damaged in the store: nix-store --repair-path ${info.path}`,
    })
  }
  const { references, deriver, ca, signatures } = info
  context.catalog.addStorePath(row.narHash, { storePath: info.path, references, deriver, ca, signatures, vouchedBy: 'nix' })
  return row
}
