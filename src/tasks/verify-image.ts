import { isNarvikError, messageOf, NarvikError } from '../errors.ts'
import { decodeManifest, manifestDigest } from '../image/manifest.ts'
import type { Ref } from '../image/ref.ts'
import type { Verdict } from '../image/verdict.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree, withRemark, withStage, type Measurement, type Proof } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import { describeDifference } from './difference.ts'
import { hearNix } from './hear-nix.ts'
import type { Job, Progress } from './jobs.ts'
import { askNix } from './nix-facts.ts'
import { requireImage } from './refs.ts'
import { describeMeasured, settle, withdrawDamaged } from './settle.ts'
import { trustQuestionOf } from './trust.ts'
import { waitFor } from './wait-for.ts'

export interface VerifyRequest {
  readonly ref: Ref | 'all'
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

export interface VerifyResult {
  readonly row: ImageRow
  readonly verdict: Verdict
  /** Bytes of the chunks that were wrong and are right now, and those of them that peers sent. */
  readonly repaired?: { readonly bytes: number, readonly received: number }
  /** Why an image that was to be repaired could not be. */
  readonly failure?: Error
}

/**
 * Proves again what is on disk, and has Nix look at what is in its store. An image that fails is withdrawn and rejected before anybody is answered; one that is
 * rejected already is judged again, and stays rejected.
 */
export async function verifyImages(context: TaskContext, request: VerifyRequest, verify = verifyWithNix): Promise<VerifyResult[]> {
  const rows = request.ref === 'all' ? context.catalog.list({ state: 'verified' }) : [requireImage(context.catalog, request.ref)]
  const results: VerifyResult[] = []
  for (const { narHash } of rows) {
    // One of many may have been removed, or replaced, while the others were read.
    if (request.ref === 'all' && context.catalog.get(narHash)?.state !== 'verified') continue
    const result = await waitFor(context.jobs.run('verify', narHash, self => verify(context, self)), request)
    // Of many images each has its result; of one, why it failed is the answer.
    if (result.failure !== undefined && request.ref !== 'all') throw result.failure
    results.push(result)
  }
  return results
}

/** Judges an image that an earlier run of the daemon left in quarantine, and lets it out or rejects it. */
export async function settleQuarantined(context: TaskContext, row: ImageRow): Promise<ImageRow> {
  return context.jobs.run('verify', row.narHash, async self => settle(context, row, await proveTree(context, row, self))).result
}

/**
 * Makes the manifests of verified images that have none, one after the other: their trees are proven again for it. Until then such an image is here,
 * but isn't announced or served.
 */
export async function makeMissingManifests(context: TaskContext): Promise<void> {
  for (const { narHash, manifestDigest } of context.catalog.list({ state: 'verified' })) {
    if (manifestDigest !== null) continue
    try {
      await context.jobs.run('verify', narHash, self => verifyOne(context, self)).result
    } catch (error) {
      if (isNarvikError(error, 'interrupted')) return
      context.logger.warn('cannot make the manifest of an image', { narHash: narHash.toSri(), reason: messageOf(error) })
    }
  }
}

/**
 * What Nix says of the tree of an image in its store is part of the verdict. Of the copy of one that is installed it is part of the answer alone:
 * the image's own tree is another one.
 */
async function verifyWithNix(context: TaskContext, job: Job<unknown>): Promise<VerifyResult> {
  const row = requireWhole(context, job)
  const proof = await proveTree(context, row, job)
  const stage = proof.measured === null ? undefined : await hearNix(context, row, job.signal)
  if (stage === undefined) return conclude(context, row, proof)
  if (row.place === 'nix-store') return conclude(context, row, { ...proof, verdict: withStage(proof.verdict, stage) })
  const result = await conclude(context, row, proof)
  return { ...result, verdict: withStage(result.verdict, stage) }
}

/** Proves one image again; `bytesPerSecond`: no faster than that, where nobody waits for it. */
export async function verifyOne(context: TaskContext, job: Job<unknown>, options: { readonly bytesPerSecond?: number | undefined } = {}): Promise<VerifyResult> {
  const row = requireWhole(context, job)
  return conclude(context, row, await proveTree(context, row, job, options))
}

/** @throws NarvikError `not-found`, or `conflict` where not all of the image is here. */
export function requireWhole(context: TaskContext, job: Job<unknown>): ImageRow {
  const row = context.catalog.get(job.narHash)
  if (row === undefined) throw new NarvikError('not-found', `Cannot verify ${job.narHash.toSri()}: it was removed meanwhile`)
  if (row.state === 'wanted' || row.state === 'receiving') {
    throw new NarvikError('conflict', `Cannot verify ${row.narHash.toSri()}: found it ${row.state}, needed the whole of it`)
  }
  return row
}

/** Does what follows from a proof of an image, in whatever state it is. */
export async function conclude(context: TaskContext, row: ImageRow, proof: Proof): Promise<VerifyResult> {
  if (row.state === 'quarantined') return { row: await settle(context, row, proof), verdict: proof.verdict }
  if (row.state === 'rejected') return { row, verdict: proof.verdict }
  if (proof.verdict.verdict === 'pass') {
    context.catalog.keeping.markProven(row.narHash)
    if (row.newestChange !== proof.newestChange) context.catalog.setNewestChange(row.narHash, proof.newestChange)
    if (row.vouchedBy !== proof.vouchedBy) context.catalog.setVouchedBy(row.narHash, proof.vouchedBy)
    describeMeasured(context, row, proof)
    const proven = context.catalog.get(row.narHash) ?? row
    if (row.manifestDigest === null) context.announcer.announce(proven)
    return { row: proven, verdict: proof.verdict }
  }
  const damaged = await withdrawDamaged(context, row, proof.verdict.reason ?? 'verification failed')
  return { row: await settle(context, damaged, proof), verdict: proof.verdict }
}

/** Has the pipeline judge the tree of an image, wherever its state says that it is. */
export async function proveTree(context: TaskContext, row: ImageRow, job: Job<unknown>, { bytesPerSecond }: { readonly bytesPerSecond?: number | undefined } = {}): Promise<Proof> {
  const { content, settings } = context
  const { narHash, narSize, manifestDigest } = row
  const tree = content.visiblePath(row) ?? (row.place === 'nix-store' ? row.storePath : null) ?? content.quarantineTree(narHash)
  const claims = narSize === null ? [] : [{ by: 'the catalog', narHash, narSize, manifestDigest }]
  job.report({ phase: 'verifying', bytes: 0, totalBytes: narSize })
  const registered = await isRegistered(context, row, job.signal)
  const subject = { tree, expected: narHash, claims, trust: trustQuestionOf(settings.trust, row), alterable: row.place === 'nix-store', ...registered }
  const proof = await verifyTree(subject, { signal: job.signal, onProgress: bytes => { job.report({ bytes }) }, bytesPerSecond })
  return proof.measured === null || proof.measured.narHash.equals(narHash) ? proof : withDifference(context, row, proof, proof.measured)
}

/** Says where the tree differs from what was proven, where the manifest of that is still here. */
function withDifference({ catalog }: TaskContext, { narHash, manifestDigest: expected }: ImageRow, proof: Proof, measured: Measurement): Proof {
  const proven = catalog.manifest(narHash)
  if (proven === undefined || manifestDigest(proven) !== expected) return proof
  const difference = describeDifference(decodeManifest(proven), decodeManifest(measured.manifest))
  return difference === undefined ? proof : { ...proof, verdict: withRemark(proof.verdict, 'nar-hash', difference) }
}

/** Whether Nix still has the image where it is said to be; nothing where it isn't in the store, or Nix does not answer. */
async function isRegistered(context: TaskContext, row: ImageRow, signal: AbortSignal): Promise<{ registered?: boolean }> {
  if (row.place !== 'nix-store' || row.storePath === null) return {}
  const { info, answered } = await askNix(context, row.storePath, signal)
  return answered ? { registered: info !== null } : {}
}

/**
 * Takes an image out of sight whose tree was seen to be damaged while it was served, and judges it again in the
 * background: a tree that turns out to be whole is verified again.
 */
export function handleDamage(context: TaskContext, { narHash }: ImageRow, reason: string): void {
  const work = async (): Promise<void> => {
    await context.jobs.run('verify', narHash, async self => {
      const row = context.catalog.get(narHash)
      if (row?.state !== 'verified') return
      const damaged = await withdrawDamaged(context, row, reason)
      await settle(context, damaged, await proveTree(context, damaged, self))
    }).result
  }
  work().catch((error: unknown) => {
    context.logger.warn('cannot judge a damaged image', { narHash: narHash.toSri(), reason: messageOf(error) })
  })
}
