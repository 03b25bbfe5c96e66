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
  const full = { ...evidence, verdict }
  if (verdict.verdict === 'fail') return reject(parts, row, verdict.reason ?? 'verification failed', full)
  if (row.place === 'content') await parts.content.publish(row.narHash)
  const verified = parts.catalog.transition(row.narHash, 'pass', { reason: 'verified: the NAR hash was recomputed over the finished tree', evidence: full })
  await expose(parts, verified)
  parts.logger.info('verified', { narHash: row.narHash.toSri(), name: row.name })
  return verified
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
  if (row.place === 'content') await content.withdraw(row.narHash)
  logger.warn('withdrew a damaged image', { narHash: row.narHash.toSri(), reason })
  return damaged
}

function reject({ catalog, logger }: Parts, row: ImageRow, reason: string, evidence: Evidence): ImageRow {
  logger.warn('rejected', { narHash: row.narHash.toSri(), reason })
  return catalog.transition(row.narHash, 'fail', { reason, evidence })
}
