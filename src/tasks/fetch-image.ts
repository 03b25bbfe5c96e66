import { codeOf, isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { refText, type Ref, type RefKind } from '../image/ref.ts'
import { isPolicyRefusal, type PeerShare, type Verdict } from '../image/verdict.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree, type Proof } from '../verify/pipeline.ts'
import { SWARM_MIN_NAR_BYTES } from '../limits.ts'
import type { Provider } from '../p2p/router.ts'
import { Attempt } from './attempt.ts'
import { Blame } from './blame.ts'
import type { TaskContext } from './context.ts'
import { askForSignatures } from './ask-for-signatures.ts'
import { introduce, type Introduction } from './introduction.ts'
import type { Job, Progress } from './jobs.ts'
import { Providers } from './providers.ts'
import { nameAsPublished, nameImage } from './name-image.ts'
import { expiredElsewhere, findPublished, notePublisher, type Published } from './published-names.ts'
import { checkName, lookUp } from './refs.ts'
import { setPriority } from './queue.ts'
import { settle } from './settle.ts'
import { SwarmAttempt } from './swarm/attempt.ts'
import { Turn } from './turn.ts'
import { admit, policyRefusal, trustQuestionOf } from './trust.ts'
import { proveTree } from './verify-image.ts'
import { waitFor } from './wait-for.ts'

/** Times that one fetch starts over after a rejection, before it is left to the operator. */
const MAX_ROUNDS = 8

export interface FetchRequest {
  /** A NAR hash; a name that a trusted publisher has given; or the store path or name of an image that the catalog knows already. */
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
  // A hash is taken up at once; a name has to be looked up first.
  const { narHash, askedBy, published } = request.ref.kind === 'name' ? await resolveImage(context, request.ref, request.signal) : resolveHere(context, request.ref)
  if (request.name !== undefined) checkName(context.catalog, request.name, narHash)
  const known = context.catalog.get(narHash)
  context.uses.touch(narHash)
  const row = known?.state === 'verified' ? known : await waitForFetch(context, { narHash, name: request.name, askedBy, published, priority: request.priority }, request)
  return handOver(context, row, { askedBy, published, name: request.name })
}

/**
 * Gives a verified image to one who asked for it, with its name; it may have been fetched for another, who asked in another way.
 * @throws NarvikError `refused` where it has too few signatures for the way in which it was asked for.
 */
export async function handOver(context: TaskContext, row: ImageRow, { askedBy, published, name }: Pick<Wish, 'askedBy' | 'published' | 'name'>): Promise<ImageRow> {
  const admitted = await admit(context, notePublisher(context, row, published), askedBy)
  return name === undefined && published !== undefined ? nameAsPublished(context, admitted, published) : nameImage(context, admitted, name)
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
  /** Who has named it, where it is asked for by a published name. */
  readonly published?: Published | undefined
}

/**
 * The NAR hash that is meant, and whose word that rests on. A name in the catalog was given by this host, so it stands
 * for the hash as it was asked for then, unless a trusted publisher has given the name a meaning; that a store path has
 * this hash may be a peer's claim.
 * @throws NarvikError `not-found` for a name or store path that nobody knows; `refused` where all that is known of a name has expired; see also `findPublished`.
 */
export async function resolveImage(context: TaskContext, ref: Ref, signal?: AbortSignal): Promise<Pick<Wish, 'narHash' | 'askedBy' | 'published'>> {
  const published = ref.kind === 'name' ? await findPublished(context, ref, signal) : undefined
  return published === undefined ? resolveHere(context, ref) : { narHash: published.narHash, askedBy: 'name', published }
}

/** What this host itself knows of a reference. */
function resolveHere(context: TaskContext, ref: Ref): Pick<Wish, 'narHash' | 'askedBy' | 'published'> {
  const { catalog } = context
  if (ref.kind === 'nar-hash') return { narHash: ref.narHash, askedBy: ref.kind }
  const known = ref.kind === 'store-path' ? catalog.getByStorePath(ref.storePath) : lookUp(catalog, ref)
  if (known !== undefined) return { narHash: known.narHash, askedBy: ref.kind === 'store-path' ? ref.kind : known.askedBy }
  const expired = ref.kind === 'name' ? expiredElsewhere(context, ref) : undefined
  throw expired ?? new NarvikError('not-found', `Cannot fetch ${refText(ref)}: found no image of that name or store path in the catalog, and no name that a trusted key has published, needed a NAR hash`, {
    hint: 'Ask the host that has it for the hash: `narvik show` prints it there; published names need the key of their publisher in trust.keys',
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
export function want({ catalog }: Pick<TaskContext, 'catalog'>, { narHash, name, askedBy, published }: Wish): boolean {
  const row = catalog.get(narHash)
  if (row === undefined) {
    catalog.create({ narHash, source: 'fetch', place: 'content', name: name ?? null, askedBy })
    if (published !== undefined) catalog.setPublisher(narHash, published.publisher)
    return true
  }
  if (row.state !== 'verified') catalog.setAskedBy(narHash, askedBy)
  if (published !== undefined) catalog.setPublisher(narHash, published.publisher)
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
  let start: Round['start']
  for (let round = 1; ; round++) {
    const attempt = await receiveWhole(context, job, { providers, turn, blame, start, exclusive: round > 1 })
    const { row, verdict } = await prove(context, job, attempt, blame)
    if (row.state === 'verified') return row
    // Nobody sends better bytes than these, and everybody was asked for signatures.
    if (isPolicyRefusal(verdict)) throw policyRefusal(row, row.reason ?? 'it has too few signatures')
    providers.exclude(blame.liars)
    const next = round < MAX_ROUNDS ? await findNextStart(context, job, attempt, { providers, blame, repaired: start }) : undefined
    if (next === undefined) throw rejection(row)
    start = next.start
    // What is damaged on disk is all that has to come again.
    if (start instanceof SwarmAttempt) context.catalog.transition(job.narHash, 'retry', { reason: 'the chunks that are damaged on disk are fetched again' })
    else await startOver(context, job.narHash, 'another provider has it')
  }
}

/** How to go on after a rejection; undefined where nothing could make it better. */
async function findNextStart(
  context: TaskContext, job: Job<unknown>, attempt: Attempt | SwarmAttempt, { providers, blame, repaired }: Pick<Round, 'providers' | 'blame'> & { repaired: Round['start'] },
): Promise<Pick<Round, 'start'> | undefined> {
  if (attempt.kind === 'stream') {
    if (blame.isUndecided || blame.areSendersCleared) providers.startOver()
    return !blame.isHostAtFault && await providers.hasNext() ? { start: undefined } : undefined
  }
  if (blame.isHostAtFault) return repaired instanceof SwarmAttempt ? undefined : { start: attempt.repaired() }
  const start = await findOtherWord(context, job, attempt, { providers, blame })
  return start && { start }
}

interface Round {
  readonly providers: Providers
  readonly turn: Turn
  readonly blame: Blame
  /** What is left of the round before, without the chunks that were damaged on disk; or what a provider says of the image; or nothing. */
  readonly start: SwarmAttempt | Introduction | undefined
  /** Whether a provider is taken by itself, so that the next verdict speaks of it alone. */
  readonly exclusive: boolean
}

/** Receives the whole of the NAR: in chunks from many, or, where it is small, in one stream that goes on at the next provider when one fails. */
async function receiveWhole(context: TaskContext, job: Job<unknown>, round: Round): Promise<Attempt | SwarmAttempt> {
  const { providers, turn } = round
  let attempt = await firstAttempt(context, job, round)
  if (attempt?.isWhole === true) {
    attempt.takeUp()
    return attempt
  }
  try {
    for (;;) {
      await untilRoom(context, job)
      if (attempt?.kind === 'chunks') {
        // Where nobody has the whole, others find the part that is here only while it is being received: they get their time.
        if (!turn.isTaken && !await providers.untilSome()) providers.progressed()
        await turn.take()
        const end = await receiveChunks(context, job, attempt, round)
        if (end === 'whole') return attempt
        attempt = end === 'paused' ? await firstAttempt(context, job, {}) : await startAttempt(context, job, end)
        continue
      }
      const provider = await providers.next()
      await turn.take()
      const before: number = attempt?.offset ?? 0
      try {
        attempt ??= await startAttempt(context, job, await introduceFor(context, job, provider, round))
        if (attempt.kind === 'chunks') continue
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
        if (!round.exclusive || attempt?.kind !== 'stream') continue
        await attempt.abandon()
        attempt = undefined
      }
    }
  } finally {
    if (attempt?.kind === 'stream') await attempt.close()
  }
}

async function firstAttempt(context: TaskContext, job: Job<unknown>, { start }: Partial<Round>): Promise<Attempt | SwarmAttempt | undefined> {
  if (start instanceof SwarmAttempt) return start
  if (start !== undefined) return startAttempt(context, job, start)
  return await SwarmAttempt.resume(context, job) ?? await Attempt.resume(context, job)
}

function startAttempt(context: TaskContext, job: Job<unknown>, introduction: Introduction): Promise<Attempt | SwarmAttempt> {
  const inChunks = introduction.layout.narSize > SWARM_MIN_NAR_BYTES && !introduction.chunks.isNone
  return (inChunks ? SwarmAttempt : Attempt).begin(context, job, introduction)
}

async function introduceFor(context: TaskContext, job: Job<unknown>, provider: Provider, { blame }: Pick<Round, 'blame'>): Promise<Introduction> {
  const introduction = await introduce(context, job, provider)
  blame.checkWord(introduction.word)
  return introduction
}

/** Receives what is missing from the swarm, until all is here or the disk is nearly full; answers with what another provider says of the image where the swarm of this manifest has nothing. */
async function receiveChunks(context: TaskContext, job: Job<unknown>, attempt: SwarmAttempt, round: Round): Promise<Introduction | 'whole' | 'paused'> {
  const { providers } = round
  const before = attempt.offset
  // The one that told of the image is asked for chunks like all others.
  providers.startOver()
  try {
    await attempt.receive(providers)
    return 'whole'
  } catch (error) {
    if (await isPause(context, error, attempt)) {
      providers.progressed()
      return 'paused'
    }
    if (!isNarvikError(error, 'no-provider') || attempt.offset > before) throw error
    const other = await findOtherWord(context, job, attempt, round)
    if (other === undefined) throw error
    return other
  }
}

/** What a provider says that has another manifest, where there is one. */
async function findOtherWord(context: TaskContext, job: Job<unknown>, { manifestDigest }: SwarmAttempt, round: Pick<Round, 'providers' | 'blame'>): Promise<Introduction | undefined> {
  const { providers } = round
  providers.startOver()
  while (await providers.hasNext()) {
    const provider = await providers.next()
    try {
      const introduction = await introduceFor(context, job, provider, round)
      if (introduction.word.manifestDigest !== manifestDigest) return introduction
    } catch (error) {
      if (!isPeersFault(error)) throw error
      providers.failed(provider, messageOf(error))
    }
  }
  return undefined
}

/** The same gate as for an import: what is on disk is judged. It was read behind the bytes that came, or is read now. */
async function prove(context: TaskContext, job: Job<unknown>, attempt: Attempt | SwarmAttempt, blame: Blame): Promise<{ row: ImageRow, verdict: Verdict }> {
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
  try {
    return { row: await settle(context, row, proof, await blame.judge(attempt, proof)), verdict: proof.verdict }
  } finally {
    if (attempt.kind === 'chunks') attempt.end()
  }
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
async function isPause({ space }: TaskContext, error: unknown, attempt: unknown): Promise<boolean> {
  return attempt !== undefined && isNarvikError(error, 'disk-full') && await space.isLow()
}

/** Room is asked for on the word of one peer: another one may say that less is needed. */
async function isOthersWord(error: unknown, attempt: unknown, providers: Providers): Promise<boolean> {
  return isNarvikError(error, 'disk-full', 'over-quota') && attempt === undefined && await providers.hasNext()
}

function rejection({ narHash, reason }: ImageRow): NarvikError {
  return new NarvikError('verification-failed', `Cannot accept ${narHash.toSri()}: ${reason ?? 'it failed verification'}`, {
    hint: 'The image is kept in quarantine with its evidence, see `narvik show`; `narvik fetch` tries again, `narvik rm` drops it',
  })
}
