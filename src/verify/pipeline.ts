import { isNarvikError, messageOf } from '../errors.ts'
import { encodeListing } from '../image/listing-codec.ts'
import { encodeManifest, listsChunks, manifestDigest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { StageResult, Verdict } from '../image/verdict.ts'
import type { Voucher } from '../image/voucher.ts'
import type { FollowedTree } from '../nar/follower.ts'
import { type ChunkedTree, chunkTree, scanTree } from '../nar/hash-tree.ts'
import { narSizeOf } from '../nar/layout.ts'
import { newestChange } from '../nar/newest-change.ts'
import { judgeTrust, type TrustQuestion } from './trust.ts'

/** What somebody says of an image: a peer, its record in the DHT, Nix, the manifest. */
export interface Claim {
  /** Who says it, for the evidence: `peer 12D3…`, `DHT record of 12D3…`, `Nix`, `manifest`. */
  readonly by: string
  readonly narHash: NarHash
  readonly narSize: number
  readonly manifestDigest: string | null
}

/** The tree on disk, and what it is expected to be. */
export interface Subject {
  readonly tree: string
  /** The NAR hash that is asked for; null measures the tree, to learn what it is. */
  readonly expected: NarHash | null
  readonly claims: readonly Claim[]
  /** Where the policy of this host has a say; without it nothing needs a signature and no store path is believed. */
  readonly trust?: TrustQuestion
  /** Whether others may alter the tree: then the proof says how new it was before it was read. */
  readonly alterable?: boolean
  /** What the tree was found to be while it was received: then only its shape is looked at again. */
  readonly followed?: FollowedTree | undefined
  /** Whether the Nix store of this host has the tree, where it is one of its own; absent where it is not, or was not asked. */
  readonly registered?: boolean
}

/** What was found on disk, where the tree could be read at all. */
export interface Measurement {
  readonly narHash: NarHash
  readonly narSize: number
  readonly manifest: Uint8Array
  readonly manifestDigest: string
}

export interface Proof {
  readonly verdict: Verdict
  readonly measured: Measurement | null
  /** The newest change time of the tree before it was read, in microseconds; null where it is not alterable. */
  readonly newestChange: number | null
  /** Why the store path that it is said to have may be believed; null: it is a claim, or there is none. */
  readonly vouchedBy: Voucher | null
}

export interface VerifyOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (bytes: number) => void
  /** Bytes of the NAR that are read in a second, for work that nobody waits for. */
  readonly bytesPerSecond?: number | undefined
}

interface Outcome {
  readonly verdict: 'pass' | 'fail' | 'skipped'
  readonly detail: string
  readonly expected?: string
  readonly found?: string
}

type Stage = (subject: Subject, measured: Measurement) => Outcome

/** The stages after the tree was read, in the order in which they are reported. */
const STAGES: readonly (readonly [string, Stage])[] = [
  ['size', checkSize],
  ['nar-hash', checkNarHash],
  ['metadata', checkMetadata],
]

/**
 * Proves that the tree on disk is the image that is expected: reads all of it, unless that was done while it was received, recomputes its NAR hash, and compares
 * everything that was claimed of it. A failing stage doesn't end the pipeline, so that the evidence is whole. Errors
 * that say nothing about the tree (an aborted signal, an I/O error) are thrown; they are no verdict.
 */
export async function verifyTree(subject: Subject, options: VerifyOptions = {}): Promise<Proof> {
  const started = performance.now()
  const { read, newestChange } = await readTree(subject, options)
  const milliseconds = elapsed(started)
  if (typeof read === 'string') return { verdict: conclude([{ stage: 'shape', verdict: 'fail', detail: read, milliseconds }]), measured: null, newestChange: null, vouchedBy: null }
  const notes = [
    ...read.wasFollowed ? ['; their bytes were read behind those that came'] : [],
    ...listsChunks(read.measurement.manifest) ? [] : ['; they have too many chunks to be listed, so the image goes in one stream'],
  ]
  const shape: StageResult = { stage: 'shape', verdict: 'pass', detail: `${read.entries} ${read.entries === 1 ? 'entry' : 'entries'}, all of them files, directories or symlinks${notes.join('')}`, milliseconds }
  const stages = subject.registered === undefined ? STAGES : [...STAGES, ['registration', checkRegistration] as const]
  const results = stages.map(([stage, check]) => ({ stage, ...check(subject, read.measurement), milliseconds: 0 }))
  const { result, vouchedBy } = await judgeSignatures(subject, read.measurement, options)
  return { verdict: conclude([shape, ...results, ...result]), measured: read.measurement, newestChange, vouchedBy }
}

/** Judges a proof anew by what somebody else says of the image's store path; the tree is not read again. */
export async function judgeAgain(proof: Proof, subject: Pick<Subject, 'tree'> & { trust: TrustQuestion }, options: VerifyOptions = {}): Promise<Proof> {
  if (proof.measured === null) return proof
  const { result, vouchedBy } = await judgeSignatures({ ...subject, expected: null, claims: [] }, proof.measured, options)
  const stages = [...proof.verdict.stages.filter(({ stage }) => stage !== 'signatures'), ...result]
  return { ...proof, verdict: conclude(stages), vouchedBy }
}

/** A verdict to which somebody else has something to say as well. */
export function withStage({ stages }: Verdict, stage: StageResult): Verdict {
  return conclude([...stages, stage])
}

/** A verdict with something more to say about one of its stages. */
export function withRemark({ stages }: Verdict, about: string, remark: string): Verdict {
  return conclude(stages.map(result => result.stage === about ? { ...result, detail: `${result.detail}: ${remark}` } : result))
}

/** The policy has its say about the bytes that were found; what else is wrong with them the other stages tell. */
async function judgeSignatures({ tree, trust }: Subject, { narHash, narSize }: Measurement, { signal }: VerifyOptions): Promise<{ result: StageResult[], vouchedBy: Voucher | null }> {
  if (trust === undefined) return { result: [], vouchedBy: null }
  const started = performance.now()
  const { vouchedBy, ...outcome } = await judgeTrust(trust, { tree, narHash, narSize }, signal === undefined ? {} : { signal })
  return { result: [{ stage: 'signatures', ...outcome, milliseconds: elapsed(started) }], vouchedBy }
}

async function readTree({ tree, followed, expected, alterable = false }: Subject, options: VerifyOptions): Promise<{ read: Awaited<ReturnType<typeof measure>>, newestChange: number | null }> {
  // A tree that is gone is for `measure` to tell.
  const before = alterable ? await newestChange(tree).catch(() => null) : null
  return { read: await measure({ tree, followed, expected }, options), newestChange: before }
}

async function measure({ tree, followed, expected }: Pick<Subject, 'tree' | 'followed' | 'expected'>, { signal, onProgress, bytesPerSecond }: VerifyOptions): Promise<{ measurement: Measurement, entries: number, wasFollowed: boolean } | string> {
  try {
    const confirmed = await confirm(tree, followed, signal)
    const found = confirmed ?? await chunkTree(tree, { ...(signal && { signal }), ...(onProgress && { onProgress }), bytesPerSecond })
    return { measurement: measurementOf(found), entries: found.listing.count, wasFollowed: confirmed !== undefined }
  } catch (error) {
    if (isNarvikError(error, 'not-found')) return 'The tree is gone: found nothing where it was, needed it there'
    // What was proven and can't be read any more is no longer proven; what is only being imported is its owner's business.
    const isGone = expected !== null && isNarvikError(error, 'unreadable')
    if (isGone || isNarvikError(error, 'unsupported-file', 'changed-while-reading', 'invalid-nar')) return withoutPlace(messageOf(error), tree)
    throw error
  }
}

/** What was found while the tree was received holds where it has the same shape still; that nobody has touched its files was seen to before. */
async function confirm(tree: string, followed: FollowedTree | undefined, signal: AbortSignal | undefined): Promise<ChunkedTree | undefined> {
  if (followed === undefined) return undefined
  const listing = await scanTree(tree, signal === undefined ? {} : { signal })
  const isSame = Buffer.compare(encodeListing(listing), encodeListing(followed.listing)) === 0
  return isSame ? { ...followed, narSize: narSizeOf(listing) } : undefined
}

/** Where an unproven tree is, is nobody's business: what is said of it names its entries only. */
function withoutPlace(message: string, tree: string): string {
  return message.replaceAll(`${tree}/`, '').replaceAll(tree, 'the tree')
}

function measurementOf({ narHash, narSize, listing, chunks }: ChunkedTree): Measurement {
  const manifest = encodeManifest(listing, chunks)
  return { narHash, narSize, manifest, manifestDigest: manifestDigest(manifest) }
}

function checkSize({ claims }: Subject, { narSize }: Measurement): Outcome {
  const wrong = claims.find(claim => claim.narSize !== narSize)
  if (wrong === undefined) return { verdict: 'pass', detail: `the NAR has ${narSize} bytes` }
  return { verdict: 'fail', detail: `the NAR has ${narSize} bytes, ${wrong.by} says ${wrong.narSize}`, expected: String(wrong.narSize), found: String(narSize) }
}

function checkNarHash({ expected }: Subject, { narHash }: Measurement): Outcome {
  const found = narHash.toSri()
  if (expected === null) return { verdict: 'pass', detail: `the tree hashes to ${found}; nothing else was expected`, found }
  const detail = expected.equals(narHash) ? `the tree hashes to ${found}` : `the tree hashes to ${found}, not to ${expected.toSri()}`
  return { verdict: expected.equals(narHash) ? 'pass' : 'fail', detail, expected: expected.toSri(), found }
}

function checkMetadata({ claims }: Subject, measured: Measurement): Outcome {
  if (claims.length === 0) return { verdict: 'skipped', detail: 'nobody claimed anything of it' }
  for (const claim of claims) {
    if (!claim.narHash.equals(measured.narHash)) {
      return { verdict: 'fail', detail: `${claim.by} says it is ${claim.narHash.toSri()}`, expected: claim.narHash.toSri(), found: measured.narHash.toSri() }
    }
    if (claim.manifestDigest !== null && claim.manifestDigest !== measured.manifestDigest) {
      return { verdict: 'fail', detail: `${claim.by} says its manifest is ${claim.manifestDigest}`, expected: claim.manifestDigest, found: measured.manifestDigest }
    }
  }
  return { verdict: 'pass', detail: `agrees with ${claims.map(claim => claim.by).join(', ')}` }
}

function checkRegistration({ registered }: Subject): Outcome {
  if (registered === true) return { verdict: 'pass', detail: 'Nix has it as a valid path of its store' }
  return { verdict: 'fail', detail: 'Nix does not have it as a valid path of its store any more' }
}

function conclude(stages: readonly StageResult[]): Verdict {
  // The NAR hash is the judge: where it fails, it is the reason, whatever else is wrong as well.
  const failed = stages.find(({ stage, verdict }) => stage === 'nar-hash' && verdict === 'fail') ?? stages.find(({ verdict }) => verdict === 'fail')
  return { verdict: failed === undefined ? 'pass' : 'fail', stages, reason: failed?.detail ?? null }
}

function elapsed(started: number): number {
  return Math.round(performance.now() - started)
}
