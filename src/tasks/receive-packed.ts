import { codeOf, isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import { isPolicyRefusal, type Evidence } from '../image/verdict.ts'
import { restoreNar } from '../nar/restore.ts'
import { sealTree } from '../nar/seal.ts'
import { verifyTree } from '../verify/pipeline.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { settle } from './settle.ts'
import { policyRefusal, trustQuestionOf } from './trust.ts'

export interface Packed {
  /** What the peer says of it. */
  readonly metadata: ImageMetadata
  /** All bytes of its NAR. */
  readonly nar: AsyncIterable<Uint8Array>
  readonly peerId: string
  readonly name?: string | undefined
  readonly signal: AbortSignal
}

/**
 * Takes one small image through the same states and the same gate as any other: received into quarantine, read again,
 * judged. To be called where no job runs on the image, and where it is unknown, wanted or rejected.
 * @throws NarvikError `peer-failed` where its bytes are wrong: one peer sent all of them, so it is banned and named;
 * `refused` where the bytes are right and too few signatures go with them.
 */
export async function receivePacked(context: TaskContext, packed: Packed): Promise<ImageRow> {
  const { narHash } = packed.metadata
  const job = context.jobs.run('fetch', narHash, async self => {
    const signal = AbortSignal.any([self.signal, packed.signal])
    await receive(context, packed, signal)
    const { row, isRefused } = await prove(context, packed, signal)
    if (row.state === 'verified') return row
    if (isRefused) throw policyRefusal(row, row.reason ?? 'it has too few signatures')
    throw new NarvikError('peer-failed', `Cannot accept ${narHash.toSri()} from ${packed.peerId}: ${row.reason ?? 'it failed verification'}`)
  })
  return job.result
}

async function receive({ catalog, content, node, settings }: TaskContext, { metadata, nar, peerId, name }: Packed, signal: AbortSignal): Promise<void> {
  const { narHash, narSize } = metadata
  const row = catalog.get(narHash) ?? catalog.create({ narHash, source: 'fetch', place: 'content', name: name ?? null })
  // The bytes go first: of what was rejected not one is used again.
  await content.discard(narHash)
  if (row.state === 'rejected') catalog.transition(narHash, 'retry', { reason: 'another provider has it' })
  if (name !== undefined && row.name !== name) catalog.setName(narHash, name)
  catalog.describe(narHash, metadata, null)
  catalog.transition(narHash, 'start', { reason: `receiving from ${peerId}, packed with others` })
  try {
    await content.begin(narHash)
    const tree = content.quarantineTree(narHash)
    await restoreNar(nar, tree, { signal })
    await sealTree(tree)
    catalog.transition(narHash, 'complete', { reason: `received from ${peerId}` })
  } catch (error) {
    const isLie = isNarvikError(error, 'invalid-nar')
    const peers = [{ peerId, bytes: isLie ? narSize : 0, outcome: isLie ? 'lied' : 'failed', detail: messageOf(error) }] as const
    catalog.transition(narHash, 'interrupt', { reason: messageOf(error), evidence: { peers, error: codeOf(error) } })
    if (isLie) node.ban(peerId, settings.banMs, `what it sent as ${narHash.toSri()} is no NAR`)
    throw error
  }
}

async function prove(context: TaskContext, { metadata, peerId }: Packed, signal: AbortSignal): Promise<{ row: ImageRow, isRefused: boolean }> {
  const { catalog, content, node, settings } = context
  const { narHash, narSize, manifestDigest } = metadata
  const claims = [{ by: `peer ${peerId}`, narHash, narSize, manifestDigest }]
  const described = catalog.get(narHash)
  const trust = described === undefined ? {} : { trust: trustQuestionOf(settings.trust, described) }
  const proof = await verifyTree({ tree: content.quarantineTree(narHash), expected: narHash, claims, ...trust }, { signal })
  const { measured, verdict } = proof
  const isRefused = isPolicyRefusal(verdict)
  const isLie = verdict.verdict === 'fail' && !isRefused
  if (isLie) node.ban(peerId, settings.banMs, `its bytes do not give ${narHash.toSri()}`)
  const row = measured === null || isLie
    ? catalog.get(narHash)
    : catalog.describe(narHash, { ...metadata, manifestDigest: measured.manifestDigest }, measured.manifest)
  if (row === undefined) throw new NarvikError('not-found', `Cannot accept ${narHash.toSri()}: it was removed meanwhile`)
  return { row: await settle(context, row, proof, evidenceOf(peerId, narSize, isLie)), isRefused }
}

function evidenceOf(peerId: string, bytes: number, isLie: boolean): Evidence {
  if (!isLie) return { peers: [{ peerId, bytes, outcome: 'used', detail: null }] }
  return { peers: [{ peerId, bytes, outcome: 'lied', detail: 'all bytes came from it' }], notes: [`All bytes came from ${peerId}`] }
}
