import { readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { NarHash } from '../image/nar-hash.ts'
import type { Directories } from './data-directory.ts'
import { kindOf } from './durable.ts'

/** What is on disk, whatever the catalog says. */
export interface Inventory {
  /** nix32 of the images that have something under `images/`. */
  readonly published: ReadonlySet<string>
  /** nix32 of the images that have something in quarantine; true where that is a tree, or part of one. */
  readonly quarantined: ReadonlyMap<string, boolean>
  /** The links under `by-name/`, and what each points at. */
  readonly links: ReadonlyMap<string, string>
  /** Paths that Narvik made on the way to something else and did not come to remove. */
  readonly leftovers: readonly string[]
  /** Paths that Narvik did not make. */
  readonly foreign: readonly string[]
}

export async function takeInventory(directories: Directories): Promise<Inventory> {
  const found = {
    published: new Set<string>(), quarantined: new Map<string, boolean>(), links: new Map<string, string>(),
    leftovers: [] as string[], foreign: [] as string[],
  }
  for (const name of await readdir(directories.images)) {
    if (isNix32(name)) found.published.add(name)
    else found.foreign.push(join(directories.images, name))
  }
  for (const name of await readdir(directories.quarantine)) {
    const path = join(directories.quarantine, name)
    if (isNix32(name)) found.quarantined.set(name, await kindOf(join(path, 'tree')) !== undefined)
    else if (/^(stage|trash)-[0-9a-f]{16}$/.test(name)) found.leftovers.push(path)
    else found.foreign.push(path)
  }
  for (const name of await readdir(directories.names)) {
    const path = join(directories.names, name)
    if (await kindOf(path) !== 'symlink') found.foreign.push(path)
    else if (/^\.tmp-[0-9a-f]{16}$/.test(name)) found.leftovers.push(path)
    else found.links.set(name, await readlink(path))
  }
  // The rest there is Nix's, and the business of whoever protects images in its store.
  for (const name of await readdir(directories.roots)) {
    if (/\.tmp-[0-9a-f]{16}$/.test(name)) found.leftovers.push(join(directories.roots, name))
  }
  return found
}

function isNix32(name: string): boolean {
  return name.length === 52 && NarHash.tryParse(name)?.toNix32() === name
}
