import { messageOf } from '../errors.ts'
import { MAX_SIGNATURE_ASKS } from '../limits.ts'
import { fetchMetadata } from '../p2p/meta/client.ts'
import type { ImageRow } from '../store/image-row.ts'
import { judgeAgain, type Proof } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import { trustQuestion } from './trust.ts'

interface Refused {
  readonly tree: string
  readonly proof: Proof
  /** The peer whose word was too little, where it was asked only now. */
  readonly voucher: string | null
  readonly signal: AbortSignal
}

/**
 * Asks the other providers of an image whose bytes are right what they know of it: one of them may have the signatures
 * that the first lacks. Answers with the proof that passes, the image then being described as that provider does; or
 * with the one that was given.
 */
export async function askForSignatures(context: TaskContext, row: ImageRow, { tree, proof, voucher, signal }: Refused): Promise<Proof> {
  const { node, catalog, logger, settings } = context
  const { narHash, name, askedBy, publisher } = row
  let asked = 0
  for await (const { peerId } of node.router.find(narHash, { signal })) {
    if (peerId === voucher || node.isBanned(peerId)) continue
    if (++asked > MAX_SIGNATURE_ASKS) break
    try {
      const answer = await fetchMetadata(node, peerId, narHash, { signal })
      if (answer.status !== 'ok' || proof.measured?.manifestDigest !== answer.metadata.manifestDigest) continue
      const better = await judgeAgain(proof, { tree, trust: trustQuestion(settings.trust, answer.metadata, { askedBy, local: false, publisher }) }, { signal })
      if (better.verdict.verdict === 'fail') continue
      catalog.describe(narHash, { ...answer.metadata, name }, proof.measured.manifest)
      return better
    } catch (error) {
      signal.throwIfAborted()
      logger.debug('cannot ask for signatures', { narHash: narHash.toSri(), peerId, reason: messageOf(error) })
    }
  }
  return proof
}
