import { messageOf, NarvikError } from '../errors.ts'
import { runBytes } from '../image/chunk-check.ts'
import { decodeManifest, manifestDigest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { isPolicyRefusal, type Evidence } from '../image/verdict.ts'
import { Layout } from '../nar/layout.ts'
import { sealTree } from '../nar/seal.ts'
import { TreeWriter } from '../nar/tree-writer.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { fetchChunks } from './fetch-chunks.ts'
import { findDamage } from './find-damage.ts'
import type { Job } from './jobs.ts'
import { reuseLocal } from './reuse.ts'
import { settle, withdrawDamaged } from './settle.ts'
import { type Blueprint, claimRoom } from './space/claim-room.ts'
import { Books } from './swarm/books.ts'
import { conclude, proveTree, requireWhole, type VerifyRequest, type VerifyResult, verifyImages } from './verify-image.ts'

/**
 * As `verifyImages`, and repairs what is damaged: the image is withdrawn, its shape is made right, the chunks that are wrong on disk are brought from other images
 * of this host and from peers, and the whole is proven again. What can't be repaired is rejected, with what was repaired of it.
 * @throws NarvikError of one image that can't be repaired: `no-provider`, `refused` where it is in the Nix store, `conflict`.
 */
export async function repairImages(context: TaskContext, request: VerifyRequest): Promise<VerifyResult[]> {
  return verifyImages(context, request, repairOne)
}

async function repairOne(context: TaskContext, job: Job<unknown>): Promise<VerifyResult> {
  const row = requireWhole(context, job)
  const proof = await proveTree(context, row, job)
  // The policy isn't content with it: other bytes would not help.
  if (proof.verdict.verdict === 'pass' || isPolicyRefusal(proof.verdict)) return conclude(context, row, proof)
  const blueprint = readBlueprint(context, row)
  if (blueprint instanceof NarvikError) return { ...await conclude(context, row, proof), failure: blueprint }
  const damaged = await takeBack(context, row, proof.verdict.reason ?? 'verification failed')
  const repair: Repair = { books: new Books(), bytes: 0 }
  try {
    await rebuild(context, job, blueprint, repair)
    const again = await proveTree(context, damaged, job)
    const note = repair.bytes === 0 ? 'The shape of the tree was repaired; none of its bytes were wrong' : `Chunks of ${repair.bytes} bytes were wrong on disk, and were brought again`
    const evidence = evidenceOf(repair, again.verdict.verdict, note)
    const received = repair.books.bytesPerPeer().reduce((sum, { bytes }) => sum + bytes, 0)
    return { row: await settle(context, damaged, again, evidence), verdict: again.verdict, repaired: { bytes: repair.bytes, received } }
  } catch (error) {
    job.signal.throwIfAborted()
    await sealTree(context.content.quarantineTree(job.narHash)).catch(() => undefined)
    const evidence = evidenceOf({ ...repair, bytes: broughtBy(repair.books) }, 'fail', `It could not be repaired: ${messageOf(error)}`)
    return { row: await settle(context, damaged, proof, evidence), verdict: proof.verdict, failure: error instanceof Error ? error : new Error(messageOf(error)) }
  } finally {
    context.space.release(job.narHash.toNix32())
  }
}

/** What was found wrong, and who has brought it. */
interface Repair {
  readonly books: Books
  bytes: number
}

interface Proved extends Blueprint {
  readonly manifestDigest: string
}

/** What the tree should be, by the manifest that was made when it was proven; or why it can't be repaired. */
function readBlueprint({ catalog }: TaskContext, { narHash, place, storePath, manifestDigest: expected }: ImageRow): Proved | NarvikError {
  if (place === 'nix-store') {
    return new NarvikError('refused', `Cannot repair ${narHash.toSri()}: found it in the Nix store as ${String(storePath)}, needed a tree that is Narvik's to write`, {
      hint: `Have Nix repair it: nix store repair ${String(storePath)}; then import it again`,
    })
  }
  const bytes = catalog.manifest(narHash)
  if (bytes === undefined || manifestDigest(bytes) !== expected) {
    return new NarvikError('conflict', `Cannot repair ${narHash.toSri()}: found no manifest of it in the catalog, needed that with which it was proven`, { hint: `Have it fetched as a whole: narvik rm ${narHash.toSri()}; narvik fetch ${narHash.toSri()}` })
  }
  const manifest = decodeManifest(bytes)
  if (manifest.chunks.isNone) {
    return new NarvikError('conflict', `Cannot repair ${narHash.toSri()}: found more chunks than a manifest lists, needed a list of them`, { hint: `Have it fetched as a whole: narvik rm ${narHash.toSri()}; narvik fetch ${narHash.toSri()}` })
  }
  return { layout: Layout.describedBy(manifest), chunks: manifest.chunks, manifestDigest: expected }
}

/** Takes the image out of sight, or back from what was rejected, to be worked on in quarantine. */
async function takeBack(context: TaskContext, row: ImageRow, reason: string): Promise<ImageRow> {
  const { catalog, content } = context
  if (row.state === 'verified') await withdrawDamaged(context, row, reason)
  if (row.state === 'rejected') {
    for (const event of ['retry', 'start', 'complete'] as const) catalog.transition(row.narHash, event, { reason: 'it is to be repaired' })
  }
  await content.begin(row.narHash)
  return catalog.get(row.narHash) ?? row
}

/** Makes the tree what it should be, bringing what is wrong. */
async function rebuild(context: TaskContext, job: Job<unknown>, { layout, chunks, manifestDigest }: Proved, repair: Repair): Promise<void> {
  const { narHash, signal } = job
  const { books } = repair
  const tree = context.content.quarantineTree(narHash)
  const writer = await TreeWriter.open(tree, layout, { signal })
  try {
    const missing = await findDamage(tree, { layout, chunks }, { signal, onProgress: bytes => { job.report({ phase: 'verifying', bytes }) } })
    repair.bytes = missing.runs().reduce((sum, run) => sum + runBytes(chunks, run), 0)
    await claimRoom(context, job, { layout, chunks }, chunk => missing.has(chunk))
    let done = 0
    const report = (more: number): void => { job.report({ phase: 'receiving', bytes: done += more, totalBytes: repair.bytes, peers: books.bytesPerPeer() }) }
    report(0)
    const onProven = (chunk: number, source: 'zeros' | NarHash): void => {
      missing.delete(chunk)
      if (source === 'zeros') books.zeros(chunks.length(chunk))
      else books.reused(source, chunks.length(chunk))
      report(chunks.length(chunk))
    }
    await reuseLocal(context, { narHash, layout, chunks, writer, signal, isMissing: chunk => missing.has(chunk), onProven })
    const write = async (offset: number, part: Uint8Array): Promise<void> => {
      await writer.write(offset, part)
      report(part.length)
    }
    await fetchChunks(context, job, { chunks, manifestDigest, missing, books, write })
    await writer.close()
    await sealTree(tree, { signal })
  } finally {
    await writer.close()
  }
}

/** Bytes of the chunks that came, wherever from. */
function broughtBy(books: Books): number {
  const { reused, zeros } = books.sources()
  return books.bytesPerPeer().reduce((sum, { bytes }) => sum + bytes, 0) + reused.reduce((sum, { bytes }) => sum + bytes, 0) + zeros
}

function evidenceOf({ books, bytes }: Repair, verdict: 'pass' | 'fail', note: string): Evidence {
  return { peers: books.shares(verdict), sources: books.sources(), repaired: bytes, notes: [note] }
}
