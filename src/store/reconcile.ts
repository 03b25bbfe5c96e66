import { messageOf } from '../errors.ts'
import { imageName } from '../image/metadata.ts'
import { NarHash } from '../image/nar-hash.ts'
import type { Logger } from '../log.ts'
import { removeTree } from '../nar/remove.ts'
import type { Catalog } from './catalog.ts'
import type { Content } from './content.ts'
import { kindOf } from './durable.ts'
import type { ImageRow } from './image-row.ts'
import type { Inventory } from './inventory.ts'

/** What start-up found and put right. Empty lists after a clean stop. */
export interface ReconcileReport {
  /** Were being received; are `wanted` now, with their progress. */
  readonly interrupted: NarHash[]
  /** Were being imported, which nobody can go on with; their rows and files are gone now. */
  readonly dropped: NarHash[]
  /** Had a tree in sight without a verdict; the tree is in quarantine now. */
  readonly withdrawn: NarHash[]
  /** Were verified and their tree was found in quarantine; are `quarantined` now and have to be proven again. */
  readonly damaged: NarHash[]
  /** Had a row that claims a tree, and no tree; are `rejected` now. */
  readonly missing: NarHash[]
  /** Had a published tree which the catalog has never heard of; are `quarantined` now and have to be proven. */
  readonly takenUp: NarHash[]
  /** Paths that belonged to no image and are gone now. */
  readonly removed: string[]
  /** Names whose link was made, changed or removed. */
  readonly relinked: string[]
  /** Paths that Narvik did not make; left alone. */
  readonly foreign: string[]
}

interface Collaborators {
  readonly catalog: Catalog
  readonly content: Content
  readonly logger: Logger
  readonly report: ReconcileReport
}

/**
 * Makes rows and files agree after any end of the process before; to be called once, before anything else is done with
 * either. Nothing proven is lost and nothing unproven stays in sight; being killed in the middle of it does no harm, and
 * a second call finds nothing to do.
 */
export async function reconcile(catalog: Catalog, content: Content, { logger }: { logger: Logger }): Promise<ReconcileReport> {
  const report: ReconcileReport = { interrupted: [], dropped: [], withdrawn: [], damaged: [], missing: [], takenUp: [], removed: [], relinked: [], foreign: [] }
  const parts = { catalog, content, logger, report }
  const inventory = await content.inventory()
  for (const row of catalog.list()) await settle(parts, inventory, row)
  await settleStrays(parts, inventory)
  await removeLeftovers(parts, inventory)
  await settleLinks(parts, inventory)
  return report
}

/** Makes the files of one image agree with its row, or its row with its files. */
async function settle(parts: Collaborators, inventory: Inventory, row: ImageRow): Promise<void> {
  switch (row.state) {
    case 'wanted':
    case 'receiving':
      await settleIncomplete(parts, inventory, row)
      break
    case 'quarantined':
    case 'rejected':
      await settleUnproven(parts, inventory, row)
      break
    case 'verified':
      await settleVerified(parts, inventory, row)
      break
  }
}

/** What was received so far stays in quarantine, to be gone on with. */
async function settleIncomplete(parts: Collaborators, inventory: Inventory, row: ImageRow): Promise<void> {
  const { catalog, content, logger, report } = parts
  const { narHash, state, source } = row
  if (source === 'import') {
    dropImport(parts, row)
    return
  }
  if (inventory.published.has(narHash.toNix32())) {
    await content.discardPublished(narHash)
    report.removed.push(content.imageTree(narHash))
    logger.warn('Removed a tree that no verdict had passed', { image: narHash.toSri(), state })
  }
  if (state !== 'receiving') return
  catalog.transition(narHash, 'interrupt', { reason: 'The daemon stopped while the image was being received' })
  report.interrupted.push(narHash)
  logger.info('Found an image half received', { image: narHash.toSri() })
}

/**
 * Whoever asked for the import was never told that it is done, and has the tree; peers may not have it. The files go
 * with those of any image that was removed.
 */
function dropImport({ catalog, logger, report }: Collaborators, { narHash }: ImageRow): void {
  catalog.remove(narHash, 'The daemon stopped before its import was finished')
  report.dropped.push(narHash)
  logger.warn('Dropped an import that was not finished', { image: narHash.toSri() })
}

/** A tree that waits for its verdict, or has failed it, is in quarantine and nowhere else. */
async function settleUnproven(parts: Collaborators, inventory: Inventory, row: ImageRow): Promise<void> {
  const { content, logger, report } = parts
  const { narHash, state } = row
  if (inventory.published.has(narHash.toNix32())) {
    await content.withdraw(narHash)
    report.withdrawn.push(narHash)
    logger.warn('Moved a tree without a verdict back into quarantine', { image: narHash.toSri(), state })
    return
  }
  if (state === 'quarantined' && !await hasUnprovenTree(parts, inventory, row)) reportMissing(parts, row)
}

async function settleVerified(parts: Collaborators, inventory: Inventory, row: ImageRow): Promise<void> {
  const { catalog, content, logger, report } = parts
  const { narHash, place } = row
  const key = narHash.toNix32()
  if (place === 'content' ? inventory.published.has(key) : await isInNixStore(parts, row)) {
    if (place === 'nix-store' && inventory.published.has(key)) await content.discardPublished(narHash)
    if (inventory.quarantined.has(key)) await content.discardQuarantine(narHash)
    return
  }
  if (place === 'content' && inventory.quarantined.get(key) === true) {
    catalog.transition(narHash, 'damage', { reason: 'Its tree was found in quarantine' })
    report.damaged.push(narHash)
    logger.warn('Found the tree of a verified image in quarantine; it has to be proven again', { image: narHash.toSri() })
    return
  }
  catalog.transition(narHash, 'damage', { reason: 'Its tree was not found' })
  reportMissing(parts, row)
}

function reportMissing({ catalog, content, logger, report }: Collaborators, { narHash, place, storePath }: ImageRow): void {
  const path = place === 'nix-store' ? storePath ?? 'its store path' : content.imageTree(narHash)
  const reason = place === 'nix-store' ? 'Its store path is not in the Nix store any more' : 'Its tree is not on disk any more'
  catalog.transition(narHash, 'fail', { reason, evidence: { notes: [`Nothing was found at ${path}`] } })
  report.missing.push(narHash)
  logger.error('Found no tree of an image', { image: narHash.toSri(), path })
}

async function hasUnprovenTree(parts: Collaborators, inventory: Inventory, row: ImageRow): Promise<boolean> {
  if (row.place === 'nix-store') return await isInNixStore(parts, row)
  return inventory.quarantined.get(row.narHash.toNix32()) === true
}

/** Only a clear answer counts as absent: a store that can't be looked into now may be there later. */
async function isInNixStore({ logger }: Collaborators, { storePath }: ImageRow): Promise<boolean> {
  if (storePath === null) return false
  try {
    return await kindOf(storePath) !== undefined
  } catch (error) {
    logger.warn('Could not look at a store path', { storePath, error: messageOf(error) })
    return true
  }
}

/**
 * Files without a row. With a journal they are what a removal left. A published tree without one is that of a catalog
 * that was lost: it was proven once, so it is kept, out of sight, to be proven again.
 */
async function settleStrays({ catalog, content, logger, report }: Collaborators, inventory: Inventory): Promise<void> {
  for (const key of new Set([...inventory.published, ...inventory.quarantined.keys()])) {
    const narHash = NarHash.parse(key)
    if (catalog.get(narHash) !== undefined) continue
    if (inventory.published.has(key) && catalog.journal(narHash).length === 0) {
      takeUp(catalog, narHash, nameOf(inventory.links, content.linkTarget(content.imageTree(narHash))))
      await content.withdraw(narHash)
      report.takenUp.push(narHash)
      logger.warn('Took up a tree that the catalog did not know', { image: narHash.toSri() })
      continue
    }
    await content.discard(narHash)
    report.removed.push(inventory.published.has(key) ? content.imageTree(narHash) : content.quarantineTree(narHash))
    logger.info('Removed files that belonged to no image', { image: narHash.toSri() })
  }
}

/** Whether it was private is lost as well, so it is. */
function takeUp(catalog: Catalog, narHash: NarHash, name: string | null): void {
  const note = 'Found on disk without a row in the catalog: what Nix knew of it is lost, and it is private until you say otherwise (narvik private --off)'
  catalog.together('take up a tree', () => {
    const isFree = name !== null && catalog.getByName(name) === undefined
    catalog.takeUp({ narHash, source: 'import', place: 'content', note, name: isFree ? name : null }, 'Found on disk without a row in the catalog')
    catalog.setPrivate(narHash, true)
  })
}

/** The name that a tree was shown under. */
function nameOf(links: Inventory['links'], target: string): string | null {
  for (const [name, to] of links) if (to === target && imageName.safeParse(name).success) return name
  return null
}

async function removeLeftovers({ logger, report }: Collaborators, inventory: Inventory): Promise<void> {
  for (const path of inventory.leftovers) {
    try {
      await removeTree(path)
      report.removed.push(path)
      logger.debug('Removed a leftover', { path })
    } catch (error) {
      // It is in nobody's way but for its bytes: no reason not to start.
      logger.warn('Could not remove a leftover', { path, error: messageOf(error) })
    }
  }
  for (const path of inventory.foreign) {
    report.foreign.push(path)
    logger.warn('Found something in the data directory that is not Narvik\'s; it is left alone', { path })
  }
}

/** The links by name are made from the rows, and only from them. */
async function settleLinks({ catalog, content, report }: Collaborators, inventory: Inventory): Promise<void> {
  const wanted = new Map<string, string>()
  for (const row of catalog.list({ state: 'verified' })) {
    const path = content.visiblePath(row)
    if (row.name !== null && path !== null) wanted.set(row.name, path)
  }
  for (const name of inventory.links.keys()) {
    if (wanted.has(name)) continue
    await content.unlink(name)
    report.relinked.push(name)
  }
  for (const [name, path] of wanted) {
    if (inventory.links.get(name) === content.linkTarget(path)) continue
    await content.link(name, path)
    report.relinked.push(name)
  }
}
