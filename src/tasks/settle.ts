import { isNarvikError, NarvikError } from '../errors.ts'
import type { Evidence } from '../image/verdict.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { Proof } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'

type Parts = Pick<TaskContext, 'catalog' | 'content' | 'announcer' | 'logger'>

/**
 * The one door out of quarantine: takes the pipeline's proof of a quarantined image and makes it verified or rejected.
 * The order is files, then the row that claims them, then everybody else.
 */
export async function settle(parts: Parts, row: ImageRow, proof: Proof, evidence: Evidence = {}): Promise<ImageRow> {
  const { verdict } = proof
  if (verdict.verdict === 'fail') return reject(parts, row, verdict.reason ?? 'verification failed', { ...evidence, verdict })
  const [verified] = await settleAll(parts, [{ row, proof, evidence }])
  if (verified === undefined) throw new NarvikError('internal', `Cannot settle ${row.narHash.toSri()}: found no row in the answer`)
  return verified
}

/** A quarantined image whose proof is a pass. */
export interface Proven {
  readonly row: ImageRow
  readonly proof: Proof
  readonly evidence: Evidence
}

/**
 * As `settle`, for many images that have passed, each after those that it refers to: they become verified together, in this order, or
 * none of them does.
 */
export async function settleAll(parts: Parts, proven: readonly Proven[]): Promise<ImageRow[]> {
  const failed = proven.find(({ proof }) => proof.verdict.verdict === 'fail')
  if (failed !== undefined) throw new NarvikError('internal', `Cannot pass ${failed.row.narHash.toSri()}: found a verdict against it`)
  const inContent = proven.filter(({ row }) => row.place === 'content').map(({ row }) => row.narHash)
  const verified = await parts.content.publishAll(inContent, () => parts.catalog.together('record what was proven', () => proven.map(each => pass(parts, each))))
  for (const row of verified) {
    await expose(parts, row)
    parts.logger.info('verified', { narHash: row.narHash.toSri(), name: row.name })
  }
  return verified
}

function pass(parts: Parts, { row, proof, evidence }: Proven): ImageRow {
  describeMeasured(parts, row, proof)
  const { verdict, vouchedBy, newestChange } = proof
  return parts.catalog.transition(row.narHash, 'pass', { reason: 'the NAR hash was recomputed over the finished tree', evidence: { ...evidence, verdict }, vouchedBy, newestChange })
}

/** Puts down what the pipeline found of an image that is only known by its hash, as after a lost catalog, or whose manifest is missing. */
export function describeMeasured({ catalog }: Pick<Parts, 'catalog'>, { narHash, narSize, name, manifestDigest: known }: ImageRow, { measured }: Proof): void {
  if (measured === null) return
  const { manifest, manifestDigest } = measured
  if (narSize === null) {
    const unknown = { storePath: null, references: [], deriver: null, ca: null, signatures: [] }
    catalog.describe(narHash, { ...unknown, narHash, name, narSize: measured.narSize, manifestDigest }, manifest)
  } else if (known === null) {
    catalog.setManifest(narHash, manifest, manifestDigest)
  }
}

/** Shows a verified image under its name and announces it. */
export async function expose({ catalog, content, announcer }: Pick<Parts, 'catalog' | 'content' | 'announcer'>, row: ImageRow): Promise<void> {
  const path = content.visiblePath(row)
  if (row.name !== null && path !== null) await content.link(row.name, path)
  announcer.announce(catalog.get(row.narHash) ?? row)
}

/**
 * Takes an image out of sight whose tree on disk is, or may be, no longer what it was; it is quarantined again.
 */
export async function withdrawDamaged({ catalog, content, announcer, logger }: Parts, row: ImageRow, reason: string): Promise<ImageRow> {
  announcer.withdraw(row.narHash)
  const damaged = catalog.transition(row.narHash, 'damage', { reason })
  if (row.name !== null) await content.unlink(row.name)
  if (row.place === 'content') await content.withdraw(row.narHash).catch(ignoreAbsent)
  logger.warn('withdrew a damaged image', { narHash: row.narHash.toSri(), reason })
  return damaged
}

/** A tree that is gone can't be moved; the pipeline will say that it is gone. */
function ignoreAbsent(error: unknown): void {
  if (!isNarvikError(error, 'not-found')) throw error
}

async function reject({ catalog, content, logger }: Parts, row: ImageRow, reason: string, evidence: Evidence): Promise<ImageRow> {
  logger.warn('rejected', { narHash: row.narHash.toSri(), reason })
  const rejected = catalog.transition(row.narHash, 'fail', { reason, evidence })
  // What is not that image may go, or be repaired, like anything else in the Nix store.
  if (row.place === 'nix-store') await content.roots.removeLink(content.roots.path(row.narHash))
  return rejected
}
