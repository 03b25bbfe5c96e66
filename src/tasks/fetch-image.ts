import { codeOf, isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { refText, type Ref, type RefKind } from '../image/ref.ts'
import { isPolicyRefusal, type PeerShare, type Verdict } from '../image/verdict.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree, type Proof } from '../verify/pipeline.ts'
import { Attempt } from './attempt.ts'
import { Blame } from './blame.ts'
import type { TaskContext } from './context.ts'
import { askForSignatures } from './ask-for-signatures.ts'
import type { Job, Progress } from './jobs.ts'
import { Providers } from './providers.ts'
import { nameImage } from './name-image.ts'
import { checkName, lookUp } from './refs.ts'
import { setPriority } from './queue.ts'
import { settle } from './settle.ts'
import { Turn } from './turn.ts'
import { admit, policyRefusal, trustQuestionOf } from './trust.ts'
import { proveTree } from './verify-image.ts'
import { waitFor } from './wait-for.ts'

/** Times that one fetch starts over after a rejection, before it is left to the operator. */
const MAX_ROUNDS = 8

export interface FetchRequest {
  /** A NAR hash; or the store path or name of an image that the catalog knows already. */
  readonly ref: Ref
  readonly name?: string | undefined
  /** Seconds that the caller waits; the fetch itself goes on after that. */
  readonly timeoutSeconds?: number | undefined
  /** Higher ones are received first; an earlier one stays where it is absent. */
  readonly priority?: number | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

/**
 * Finds, receives and proves an image. However many callers ask for it, it is fetched once; a caller that gives up
 * leaves the fetch running.
 */
export async function fetchImage(context: TaskContext, request: FetchRequest): Promise<ImageRow> {
  const { narHash, askedBy } = resolveImage(context, request.ref)
  if (request.name !== undefined) checkName(context.catalog, request.name, narHash)
  const known = context.catalog.get(narHash)
  context.uses.touch(narHash)
  if (known?.state === 'verified') return nameImage(context, await admit(context, known, askedBy), request.name)
  const row = await waitForFetch(context, { narHash, name: request.name, askedBy, priority: request.priority }, request)
  // It may have been fetched for another caller, who asked for it in another way.
  return nameImage(context, await admit(context, row, askedBy), request.name)
}

/** Goes on with a fetch that an earlier run of the daemon, or a lack of providers, has left. */
export function resumeFetch(context: TaskContext, narHash: NarHash): void {
  if (context.jobs.find(narHash) !== undefined) return
  const job = context.jobs.run('resume', narHash, self => pursue(context, self, { fresh: false }))
  job.result.catch((error: unknown) => {
    context.logger.debug('fetch waits', { narHash: narHash.toSri(), reason: messageOf(error) })
  })
}

export interface Wish {
  readonly narHash: NarHash
  readonly name: string | undefined
  readonly askedBy: RefKind
  readonly priority: number | undefined
}

/**
 * The NAR hash that is meant, and whose word that rests on. A name in the catalog was given by this host, so it stands
 * for the hash as it was asked for then; that a store path has this hash may be a peer's claim.
 * @throws NarvikError `not-found` for a name or store path that the catalog doesn't know.
 */
export function resolveImage({ catalog }: TaskContext, ref: Ref): Pick<Wish, 'narHash' | 'askedBy'> {
  if (ref.kind === 'nar-hash') return { narHash: ref.narHash, askedBy: ref.kind }
  const known = ref.kind === 'store-path' ? catalog.getByStorePath(ref.storePath) : lookUp(catalog, ref)
  if (known !== undefined) return { narHash: known.narHash, askedBy: ref.kind === 'store-path' ? ref.kind : known.askedBy }
  throw new NarvikError('not-found', `Cannot fetch ${refText(ref)}: found no image of that name or store path in the catalog, needed a NAR hash`, {
    hint: 'Ask the host that has it for the hash: `narvik show` prints it there',
  })
}

/** Waits for the image from peers, or from an import on this host that has ended the fetch. */
async function waitForFetch(context: TaskContext, wish: Wish, request: FetchRequest): Promise<ImageRow> {
  try {
    return await waitFor(joinFetch(context, wish), request)
  } catch (error) {
    const next = context.jobs.find(wish.narHash)
    if (!isNarvikError(error, 'interrupted') || next?.kind !== 'import') throw error
    return waitFor(next as Job<ImageRow>, request)
  }
}

/** The fetch of the image that is under way, or a new one. */
function joinFetch(context: TaskContext, wish: Wish): Job<ImageRow> {
  const { narHash } = wish
  const running = context.jobs.find(narHash)
  const isReceiving = running?.kind === 'resume' && running.progress.phase !== 'finding'
  if (wish.priority !== undefined && running !== undefined) setPriority(context, narHash, wish.priority)
  if (running?.kind === 'fetch' || isReceiving) return running as Job<ImageRow>
  // One that only looks for providers in the background has used up some of its time: the caller gets all of it.
  if (running?.kind === 'resume') running.abort(new NarvikError('interrupted', 'Cannot go on looking: a caller asks for the image now'))
  return context.jobs.run('fetch', narHash, job => {
    const fresh = want(context, wish)
    if (wish.priority !== undefined) setPriority(context, narHash, wish.priority)
    return pursue(context, job, { fresh })
  })
}

/** Puts the image into state `wanted`; says whether the catalog didn't know it before. */
export function want({ catalog }: Pick<TaskContext, 'catalog'>, { narHash, name, askedBy }: Wish): boolean {
  const row = catalog.get(narHash)
  if (row === undefined) {
    catalog.create({ narHash, source: 'fetch', place: 'content', name: name ?? null, askedBy })
    return true
  }
  if (row.state !== 'verified') catalog.setAskedBy(narHash, askedBy)
  if (name !== undefined) catalog.setName(narHash, name)
  return false
}

/** Takes the image from `wanted` to `verified`; whatever ends it early leaves the image as it can go on from. */
async function pursue(context: TaskContext, job: Job<unknown>, { fresh }: { fresh: boolean }): Promise<ImageRow> {
  const row = await takeUp(context, job)
  if (row?.state === 'verified') return row
  using turn = new Turn(context, job)
  const providers = new Providers(context, { narHash: job.narHash, waitMs: context.settings.providerWaitMs, signal: job.signal })
  try {
    return await receiveAndProve(context, job, { providers, turn })
  } catch (error) {
    await leave(context, job.narHash, { error, fresh, peers: providers.shares() })
    throw error
  } finally {
    providers.close()
    context.space.release(job.narHash.toNix32())
  }
}

/** Judges what an earlier try has left in quarantine; of what was rejected for its bytes not one is used again. */
async function takeUp(context: TaskContext, job: Job<unknown>): Promise<ImageRow | undefined> {
  const left = context.catalog.get(job.narHash)
  const row = left?.state === 'quarantined' ? await settle(context, left, await proveTree(context, left, job)) : left
  if (row?.state !== 'rejected') return row
  return await judgeAnew(context, row, job) ?? startOver(context, job.narHash, 'fetched again on request')
}

/**
 * Asks the policy again about an image that it alone has rejected: keys, signatures or the way in which it is asked for
 * may have changed, and its bytes are here. Undefined where it was rejected for its bytes, or they are damaged since.
 */
async function judgeAnew(context: TaskContext, { narHash }: ImageRow, job: Job<unknown>): Promise<ImageRow | undefined> {
  const { catalog, content } = context
  const verdict = catalog.journal(narHash).findLast(({ event }) => event === 'fail')?.evidence?.verdict
  if (verdict === undefined || !isPolicyRefusal(verdict)) return undefined
  catalog.transition(narHash, 'retry', { reason: 'fetched again on request' })
  catalog.transition(narHash, 'start', { reason: 'its bytes are here' })
  const row = catalog.transition(narHash, 'complete', { reason: 'only the policy was against it' })
  const first = await proveTree(context, row, job)
  const proof = await withSignatures(context, row, { tree: content.quarantineTree(narHash), proof: first, voucher: null, signal: job.signal })
  const settled = await settle(context, row, proof)
  if (settled.state === 'verified') return settled
  if (isPolicyRefusal(proof.verdict)) throw policyRefusal(settled, settled.reason ?? 'it has too few signatures')
  return undefined
}

function withSignatures(context: TaskContext, row: ImageRow, refused: Parameters<typeof askForSignatures>[2]): Promise<Proof> {
  return isPolicyRefusal(refused.proof.verdict) ? askForSignatures(context, row, refused) : Promise.resolve(refused.proof)
}

/** The bytes go first: an image that is wanted goes on with those that it has. */
async function startOver({ catalog, content }: TaskContext, narHash: NarHash, reason: string): Promise<ImageRow> {
  await content.discard(narHash)
  return catalog.transition(narHash, 'retry', { reason })
}

async function receiveAndProve(context: TaskContext, job: Job<unknown>, { providers, turn }: { providers: Providers, turn: Turn }): Promise<ImageRow> {
  const blame = new Blame(context, job.narHash)
  for (let round = 1; ; round++) {
    const attempt = await receiveWhole(context, job, providers, { turn, exclusive: round > 1 })
    const { row, verdict } = await prove(context, job, attempt, blame)
    if (row.state === 'verified') return row
    // Nobody sends better bytes than these, and everybody was asked for signatures.
    if (isPolicyRefusal(verdict)) throw policyRefusal(row, row.reason ?? 'it has too few signatures')
    providers.exclude(blame.liars)
    if (blame.isUndecided || blame.areSendersCleared) providers.startOver()
    if (blame.isHostAtFault || round >= MAX_ROUNDS || !await providers.hasNext()) throw rejection(row)
    await startOver(context, job.narHash, 'another provider has it')
  }
}

/**
 * Receives every byte of the NAR, going to the next provider at the byte that was reached when one fails. After a
 * rejection a provider is taken by itself, so that the next verdict speaks of it alone.
 */
async function receiveWhole(context: TaskContext, job: Job<unknown>, providers: Providers, { turn, exclusive }: { turn: Turn, exclusive: boolean }): Promise<Attempt> {
  let attempt = await Attempt.resume(context, job)
  if (attempt?.isWhole === true) {
    attempt.takeUp()
    return attempt
  }
  try {
    for (;;) {
      await untilRoom(context, job)
      const provider = await providers.next()
      await turn.take()
      const before = attempt?.offset ?? 0
      try {
        attempt ??= await Attempt.begin(context, job, provider)
        await attempt.receiveFrom(provider, { hasAlternative: () => providers.hasSpare() })
        return attempt
      } catch (error) {
        if (await isPause(context, error, attempt)) {
          providers.startOver()
          providers.progressed()
          continue
        }
        if (!isPeersFault(error) && !await isOthersWord(error, attempt, providers)) throw error
        providers.failed(provider, messageOf(error))
        if ((attempt?.offset ?? 0) > before) providers.progressed()
        if (!exclusive || attempt === undefined) continue
        await attempt.abandon()
        attempt = undefined
      }
    }
  } finally {
    await attempt?.close()
  }
}

/** The same gate as for an import: what is on disk is judged. It was read behind the bytes that came, or is read now. */
async function prove(context: TaskContext, job: Job<unknown>, attempt: Attempt, blame: Blame): Promise<{ row: ImageRow, verdict: Verdict }> {
  const { catalog, content } = context
  const { narHash, signal } = job
  const tree = content.quarantineTree(narHash)
  job.report({ phase: 'verifying', bytes: 0 })
  const onProgress = (bytes: number): void => { job.report({ phase: 'verifying', bytes }) }
  const followed = await attempt.seal({ signal, onProgress })
  const row = catalog.transition(narHash, 'complete', { reason: `received from ${attempt.peers.join(', ')}` })
  const first = await verifyTree({ tree, expected: narHash, claims: attempt.claims, trust: trustQuestionOf(context.settings.trust, row), followed }, { signal, onProgress })
  const proof = await withSignatures(context, row, { tree, proof: first, voucher: attempt.voucher, signal })
  job.report({ phase: 'publishing' })
  return { row: await settle(context, row, proof, await blame.judge(attempt, proof)), verdict: proof.verdict }
}

/** Leaves the image where the next start can take it up; one that nothing is known of yet is forgotten. */
async function leave({ catalog, content }: TaskContext, narHash: NarHash, end: { error: unknown, fresh: boolean, peers: readonly PeerShare[] }): Promise<void> {
  const row = catalog.get(narHash)
  const reason = messageOf(end.error)
  if (row?.state === 'receiving') catalog.transition(narHash, 'interrupt', { reason, evidence: { peers: end.peers, error: codeOf(end.error) } })
  if (!end.fresh || row?.state !== 'wanted' || row.manifestDigest !== null || isNarvikError(end.error, 'interrupted')) return
  catalog.remove(narHash, reason)
  await content.discard(narHash)
}

/** Whether another provider may do better. */
export function isPeersFault(error: unknown): boolean {
  return isNarvikError(error, 'peer-failed', 'invalid-manifest', 'invalid-nar', 'too-large')
}

/** While the disk is nearly full nothing is received. */
async function untilRoom({ space }: TaskContext, job: Job<unknown>): Promise<void> {
  await space.untilRoom({ signal: job.signal, onPause: reason => { job.report({ phase: reason === null ? 'finding' : 'paused' }) } })
}

/** Whether the fetch only has to wait until there is room on the disk again. */
async function isPause({ space }: TaskContext, error: unknown, attempt: Attempt | undefined): Promise<boolean> {
  return attempt !== undefined && isNarvikError(error, 'disk-full') && await space.isLow()
}

/** Room is asked for on the word of one peer: another one may say that less is needed. */
async function isOthersWord(error: unknown, attempt: Attempt | undefined, providers: Providers): Promise<boolean> {
  return isNarvikError(error, 'disk-full', 'over-quota') && attempt === undefined && await providers.hasNext()
}

function rejection({ narHash, reason }: ImageRow): NarvikError {
  return new NarvikError('verification-failed', `Cannot accept ${narHash.toSri()}: ${reason ?? 'it failed verification'}`, {
    hint: 'The image is kept in quarantine with its evidence, see `narvik show`; `narvik fetch` tries again, `narvik rm` drops it',
  })
}
