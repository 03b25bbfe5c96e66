import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NarHash } from '../../src/image/nar-hash.ts'
import type { Catalog } from '../../src/store/catalog.ts'
import type { Content } from '../../src/store/content.ts'
import { someHash, someMetadata } from './images.ts'
import { isWhole, makeTree } from './tree.ts'

/** What a life says before and after each thing that must not be lost. */
export type Say = (word: 'publishing' | 'verified' | 'withdrawing' | 'removing' | 'removed', image: number) => void

/**
 * What a daemon does with one image, as tasks do it: receives it in parts, publishes it, damages and proves it again,
 * rejects and retries it, imports it, removes it. Each turn takes the image from whatever state it is in to the next.
 */
export async function liveWith(image: number, { catalog, content }: { catalog: Catalog, content: Content }, say: Say): Promise<void> {
  const narHash = someHash(image)
  const row = catalog.get(narHash)
  switch (row?.state) {
    case undefined:
      if (image % 2 === 0) {
        catalog.create({ narHash, source: 'fetch', place: 'content', name: `image-${image}` })
      } else {
        await importImage(narHash, { catalog, content })
      }
      break
    case 'wanted':
      catalog.transition(narHash, 'start', { reason: 'Received' })
      await receive(narHash, content)
      catalog.describe(narHash, someMetadata(narHash), Buffer.from('manifest'))
      catalog.transition(narHash, 'complete', { reason: 'All bytes are here' })
      break
    case 'receiving':
      throw new Error('reconcile left an image half received')
    case 'quarantined':
      await prove(image, narHash, { catalog, content }, say)
      break
    case 'verified':
      await endOfVerified(image, narHash, { catalog, content }, say)
      break
    case 'rejected':
      await content.discard(narHash)
      catalog.transition(narHash, 'retry', { reason: 'Asked for again' })
      break
  }
}

async function importImage(narHash: NarHash, { catalog, content }: { catalog: Catalog, content: Content }): Promise<void> {
  const stage = await content.stage()
  await makeTree(stage.tree, narHash)
  await content.adopt(stage, narHash)
  catalog.create({ narHash, source: 'import', place: 'content', name: `image-${narHash.toNix32().slice(0, 4)}` })
  catalog.describe(narHash, someMetadata(narHash), null)
  catalog.transition(narHash, 'start', { reason: 'Imported' })
  catalog.transition(narHash, 'complete', { reason: 'Imported' })
}

/** Half of the tree first, with its progress, then the rest; an interrupted one is gone on with. */
async function receive(narHash: NarHash, content: Content): Promise<void> {
  await content.begin(narHash)
  if (await isWhole(content.quarantineTree(narHash), narHash)) return
  await makeTree(content.quarantineTree(narHash), narHash, 'half')
  await content.writeProgress(narHash, { offset: 10 })
  await writeFile(join(content.quarantineTree(narHash), 'whole'), narHash.toNix32())
  await content.writeProgress(narHash, { offset: 4096 })
}

async function prove(image: number, narHash: NarHash, { catalog, content }: { catalog: Catalog, content: Content }, say: Say): Promise<void> {
  if (!await isWhole(content.quarantineTree(narHash), narHash)) {
    catalog.transition(narHash, 'fail', { reason: 'The tree is not whole' })
    return
  }
  if (catalog.get(narHash)?.narSize === null) catalog.describe(narHash, someMetadata(narHash), null)
  say('publishing', image)
  const { name } = await content.publishWith(narHash, () => catalog.transition(narHash, 'pass', { reason: 'Proven' }))
  say('verified', image)
  if (name !== null) await content.link(name, content.imageTree(narHash))
}

/** Every third time the image is found damaged, otherwise it is removed. */
async function endOfVerified(image: number, narHash: NarHash, { catalog, content }: { catalog: Catalog, content: Content }, say: Say): Promise<void> {
  const { name } = catalog.get(narHash) ?? { name: null }
  if (catalog.journal(narHash).length % 3 === 0) {
    say('withdrawing', image)
    catalog.transition(narHash, 'damage', { reason: 'Found damaged' })
    if (name !== null) await content.unlink(name)
    await content.withdraw(narHash)
    return
  }
  say('removing', image)
  if (name !== null) await content.unlink(name)
  catalog.remove(narHash, 'Asked to')
  await content.discard(narHash)
  say('removed', image)
}
