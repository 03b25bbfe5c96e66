import { dirname } from 'node:path'
import { isNarvikError, messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { SignatureFinding } from '../image/verdict.ts'
import type { Voucher } from '../image/voucher.ts'
import { checkSignatures, fingerprintOf, type PublicKey } from '../nix/signature.ts'
import { contradictionIn } from './content-address.ts'

/** What is said of an image's place in a Nix store, and what this host needs to believe it. */
export interface TrustQuestion {
  readonly storePath: string | null
  readonly references: readonly string[]
  readonly ca: string | null
  readonly signatures: readonly string[]
  /** Whether the Nix store of this host says it: then it is so. */
  readonly local: boolean
  readonly keys: readonly PublicKey[]
  /** The trusted key, as Nix writes it, whose holder published the name that the image was asked for by: that counts as a signature of the image, and of no store path. */
  readonly publishedBy?: string | null
  /** Different trusted keys that must have signed; with fewer the image fails. */
  readonly needed: number
  /** Different trusted keys that must have signed for the store path to be believed; at least 1. */
  readonly neededForPath: number
}

export interface TrustAnswer {
  readonly verdict: 'pass' | 'fail' | 'skipped'
  readonly detail: string
  readonly expected?: string
  readonly found?: string
  readonly signatures?: readonly SignatureFinding[]
  /** Why the store path may be believed; null: it is a claim. */
  readonly vouchedBy: Voucher | null
}

interface Measured {
  readonly tree: string
  readonly narHash: NarHash
  readonly narSize: number
}

/**
 * Applies the signature policy to what was measured. As in Nix, a path that follows from its content needs no signature,
 * any signature by a trusted key counts whoever else signed, and those of unknown keys are passed over. A key counts once.
 */
export async function judgeTrust(question: TrustQuestion, measured: Measured, options: { signal?: AbortSignal } = {}): Promise<TrustAnswer> {
  const { storePath, ca, references, local, needed, neededForPath, publishedBy = null } = question
  if (storePath === null) return nameless(needed, publishedBy)
  const { findings, problem } = inspect(question, storePath, measured)
  const signatures = findings.length > 0 ? { signatures: findings } : {}
  if (local) return { verdict: 'pass', detail: `the Nix store of this host has it as ${storePath}`, ...signatures, vouchedBy: 'nix' }
  const contradiction = ca === null ? undefined : await contradictionIn({ tree: measured.tree, narHash: measured.narHash, storePath, references, ca }, options)
  if (ca !== null && contradiction === undefined) {
    return { verdict: 'pass', detail: `${storePath} follows from its content, ${ca}: no signature is needed`, ...signatures, vouchedBy: 'content-address' }
  }
  const signers = new Set(findings.map(({ madeBy }) => madeBy).filter(key => key !== null).map(keyBytes))
  const vouchedBy = signers.size >= Math.max(1, neededForPath) ? 'signatures' as const : null
  const remarks = [describe(findings), problem, contradiction === undefined ? undefined : `its content address is no proof: ${contradiction}`].filter(text => text !== undefined).join('; ')
  const counted = publishedBy === null ? signers : new Set([...signers, keyBytes(publishedBy)])
  if (counted.size < needed) {
    const detail = `${plural(counted.size, 'trusted key')} signed ${storePath}, ${needed} needed (${remarks})`
    return { verdict: 'fail', detail, expected: String(needed), found: String(counted.size), ...signatures, vouchedBy: null }
  }
  const standing = vouchedBy === null ? `; ${storePath} is a claim that nobody vouches for` : ''
  return { verdict: 'pass', detail: `${plural(counted.size, 'trusted key')} signed, ${needed} needed (${remarks}${publishedBy === null ? '' : `; ${publishedBy} published its name`})${standing}`, ...signatures, vouchedBy }
}

function nameless(needed: number, publishedBy: string | null): TrustAnswer {
  if (publishedBy !== null && needed <= 1) return { verdict: 'pass', detail: `${publishedBy} published its name, ${needed} needed`, vouchedBy: null }
  if (needed === 0) return { verdict: 'skipped', detail: 'it is said to be no store path, and no signature is needed', vouchedBy: null }
  return { verdict: 'fail', detail: `it is said to be no store path, so nobody signed it, ${needed} needed`, expected: String(needed), found: '0', vouchedBy: null }
}

/** What each signature is worth for what was found on disk, whatever sizes and hashes were claimed. */
function inspect({ references, signatures, keys }: TrustQuestion, storePath: string, { narHash, narSize }: Measured): { findings: readonly SignatureFinding[], problem?: string } {
  try {
    const fingerprint = fingerprintOf({ path: storePath, narHash, narSize, references }, dirname(storePath))
    return { findings: checkSignatures(fingerprint, signatures, keys) }
  } catch (error) {
    if (!isNarvikError(error, 'invalid-argument')) throw error
    return { findings: [], problem: messageOf(error) }
  }
}

function describe(findings: readonly SignatureFinding[]): string {
  if (findings.length === 0) return 'it has no signatures'
  const names = { good: 'signed by', bad: 'bad signatures in the name of', unknown: 'unknown keys', malformed: 'no signatures at all' }
  return Object.entries(Object.groupBy(findings, ({ verdict }) => verdict))
    .map(([verdict, of]) => `${names[verdict as SignatureFinding['verdict']]}: ${[...new Set(of.map(({ keyName, text }) => keyName ?? JSON.stringify(text.slice(0, 40))))].join(', ')}`)
    .join('; ')
}

/** A key is its bytes: under two names it is still one. */
function keyBytes(publicKey: string): string {
  return publicKey.slice(publicKey.indexOf(':') + 1)
}

function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}
