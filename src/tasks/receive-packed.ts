import { codeOf, isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import { isPolicyRefusal, type Evidence } from '../image/verdict.ts'
import { restoreNar } from '../nar/restore.ts'
import { sealTree } from '../nar/seal.ts'
import { unpackNar } from '../nar/unpack.ts'
import type { Stage } from '../store/content.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree, type Proof } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import { settle, type Proven } from './settle.ts'
import { policyRefusal, trustQuestion } from './trust.ts'

export interface Packed {
  /** What the peer says of it. */
  readonly metadata: ImageMetadata
  /** All bytes of its NAR: in memory, or as they come. */
  readonly nar: Uint8Array<ArrayBuffer> | AsyncIterable<Uint8Array>
  readonly peerId: string
  readonly signal: AbortSignal
  /** Makes it the quarantined image. */
  readonly quarantine: (parcel: Parcel) => Promise<ImageRow>
  /** Lets it out of quarantine when its turn has come. */
  readonly pass: (proven: Proven) => Promise<ImageRow>
}

/** A tree that was received and read again. */
export interface Parcel {
  readonly stage: Stage
  readonly metadata: ImageMetadata
  /** null where the tree is not what was asked for. */
  readonly manifest: Uint8Array | null
  readonly peerId: string
}

/**
 * Takes one small image through the same gate as any other: received out of sight, read again, judged. To be called where no job runs on
 * the image, and where it is unknown, wanted or rejected.
 * @throws NarvikError `peer-failed` where its bytes are wrong: one peer sent all of them, so it is banned and named;
 * `refused` where the bytes are right and too few signatures go with them.
 */
export async function receivePacked(context: TaskContext, packed: Packed): Promise<ImageRow> {
  const { narHash, narSize } = packed.metadata
  const { node, settings } = context
  const job = context.jobs.run('fetch', narHash, async self => {
    const signal = AbortSignal.any([self.signal, packed.signal])
    const { row, proof } = await receive(context, packed, signal)
    const { verdict } = proof
    if (verdict.verdict === 'pass') return await passOrEnd(packed, { row, proof: { ...proof, measured: null }, evidence: evidenceOf(packed, false) }, signal)
    const isRefused = isPolicyRefusal(verdict)
    if (!isRefused) node.ban(packed.peerId, settings.banMs, `its bytes do not give ${narHash.toSri()}`)
    const rejected = await settle(context, row, proof, evidenceOf(packed, !isRefused))
    if (isRefused) throw policyRefusal(rejected, rejected.reason ?? 'it has too few signatures')
    throw new NarvikError('peer-failed', `Cannot accept ${narHash.toSri()} from ${packed.peerId}: ${rejected.reason ?? 'it failed verification'} (${narSize} bytes)`)
  })
  return job.result
}

/** Where its turn does not come, it stays in quarantine with its bytes, to be judged again. */
async function passOrEnd({ pass }: Packed, proven: Proven, signal: AbortSignal): Promise<ImageRow> {
  const ended = Promise.withResolvers<never>()
  const end = (): void => { ended.reject(signal.reason) }
  signal.addEventListener('abort', end, { once: true })
  try {
    signal.throwIfAborted()
    return await Promise.race([pass(proven), ended.promise])
  } finally {
    signal.removeEventListener('abort', end)
  }
}

async function receive(context: TaskContext, packed: Packed, signal: AbortSignal): Promise<{ row: ImageRow, proof: Proof }> {
  const { content } = context
  const { metadata, peerId } = packed
  const stage = await content.stage()
  try {
    await unpack(packed, stage, signal)
    const proof = await prove(context, packed, stage, signal)
    const isRight = proof.measured?.narHash.equals(metadata.narHash) === true && (proof.verdict.verdict === 'pass' || isPolicyRefusal(proof.verdict))
    const manifest = isRight ? proof.measured.manifest : null
    const row = await packed.quarantine({ stage, metadata: { ...metadata, manifestDigest: isRight ? proof.measured.manifestDigest : null }, manifest, peerId })
    return { row, proof }
  } catch (error) {
    await content.discardStage(stage)
    if (isNarvikError(error, 'invalid-nar')) recordLie(context, packed, error)
    throw error
  }
}

async function unpack({ nar }: Packed, { tree }: Stage, signal: AbortSignal): Promise<void> {
  if (nar instanceof Uint8Array) return unpackNar(nar, tree, { signal })
  await restoreNar(nar, tree, { signal })
  await sealTree(tree, { signal })
}

async function prove({ catalog, settings }: TaskContext, { metadata, peerId }: Packed, { tree }: Stage, signal: AbortSignal): Promise<Proof> {
  const { narHash, narSize, manifestDigest } = metadata
  const askedBy = catalog.get(narHash)?.askedBy ?? 'nar-hash'
  const claims = [{ by: `peer ${peerId}`, narHash, narSize, manifestDigest }]
  return verifyTree({ tree, expected: narHash, claims, trust: trustQuestion(settings.trust, metadata, { askedBy, local: false }) }, { signal })
}

/** What is no NAR at all left no tree: only the evidence stays. */
function recordLie({ catalog, node, settings }: TaskContext, { metadata, peerId }: Packed, error: NarvikError): void {
  const { narHash, narSize } = metadata
  node.ban(peerId, settings.banMs, `what it sent as ${narHash.toSri()} is no NAR`)
  catalog.together(`record what came of ${narHash.toSri()}`, () => {
    want(catalog, metadata)
    catalog.transition(narHash, 'start', { reason: `receiving from ${peerId}, packed with others` })
    catalog.transition(narHash, 'interrupt', { reason: messageOf(error), evidence: { peers: [{ peerId, bytes: narSize, outcome: 'lied', detail: messageOf(error) }], error: codeOf(error) } })
  })
}

/** Makes it an image that is wanted, as the peer describes it. */
export function want(catalog: TaskContext['catalog'], metadata: ImageMetadata, manifest: Uint8Array | null = null): void {
  const { narHash } = metadata
  const row = catalog.get(narHash) ?? catalog.create({ narHash, source: 'fetch', place: 'content' })
  if (row.state === 'rejected') catalog.transition(narHash, 'retry', { reason: 'another provider has it' })
  catalog.describe(narHash, { ...metadata, name: row.name }, manifest)
}

function evidenceOf({ peerId, metadata: { narSize } }: Packed, isLie: boolean): Evidence {
  if (!isLie) return { peers: [{ peerId, bytes: narSize, outcome: 'used', detail: null }] }
  return { peers: [{ peerId, bytes: narSize, outcome: 'lied', detail: 'all bytes came from it' }], notes: [`All bytes came from ${peerId}`] }
}
