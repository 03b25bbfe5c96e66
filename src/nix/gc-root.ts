import { createHash } from 'node:crypto'
import { readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { encodeNix32 } from '../image/nix32.ts'
import type { StoreLocation } from './store-location.ts'

/**
 * Whether Nix has a link registered as an indirect root: a second link to it, named by the SHA-1 of its path (nix:
 * makeSymlink and addIndirectRoot in src/libstore/indirect-root-store.cc, gc.cc). Null where that can't be seen.
 */
export async function isRegisteredRoot({ stateDir }: StoreLocation, link: string): Promise<boolean | null> {
  if (stateDir === null) return null
  const name = encodeNix32(createHash('sha1').update(link).digest())
  try {
    return await readlink(join(stateDir, 'gcroots/auto', name)) === link
  } catch {
    return false
  }
}
