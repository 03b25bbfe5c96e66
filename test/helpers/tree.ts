import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NarHash } from '../../src/image/nar-hash.ts'

/** Makes the tree of an image, or half of it: it is whole when its last file is there. */
export async function makeTree(tree: string, narHash: NarHash, part: 'half' | 'whole' = 'whole'): Promise<void> {
  await mkdir(join(tree, 'boot'), { recursive: true })
  await writeFile(join(tree, 'boot', 'kernel'), 'kernel')
  if (part === 'whole') await writeFile(join(tree, 'whole'), narHash.toNix32())
}

/** Whether a tree is the whole tree of an image: what stands for the verify pipeline here. */
export async function isWhole(tree: string, narHash: NarHash): Promise<boolean> {
  try {
    return await readFile(join(tree, 'whole'), 'utf8') === narHash.toNix32() && await readFile(join(tree, 'boot', 'kernel'), 'utf8') === 'kernel'
  } catch {
    return false
  }
}
