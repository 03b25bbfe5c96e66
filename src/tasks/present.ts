import { isNarvikError } from '../errors.ts'
import { publisherId } from '../image/name-record.ts'
import { reasonCode, type ReasonCode } from '../image/reasons.ts'
import { formatPublicKey, type PublicKey } from '../nix/signature.ts'
import type { Ban } from '../p2p/bans.ts'
import type { Sending } from '../p2p/books.ts'
import type { PeerInfo } from '../p2p/node.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow, JournalEntry } from '../store/image-row.ts'
import type { KeptName } from '../store/published-names.ts'
import type { Content } from '../store/content.ts'
import { findClosure, memberOf } from './closure.ts'
import type { FetchQueue } from './fetch-queue.ts'
import { believed } from './trust.ts'
import type { Job, Progress } from './jobs.ts'
import type { VerifyResult } from './verify-image.ts'

interface ShownBy {
  readonly catalog: Pick<Catalog, 'journal'>
  readonly content: Pick<Content, 'visiblePath'>
}

/** An image as it is shown: a path only while it is verified, a reason only while it is not. */
export function presentImage({ catalog, content }: ShownBy, row: ImageRow) {
  const { storePath, references, deriver, ca, note } = believed(row)
  return {
    narHash: row.narHash.toSri(),
    narSize: row.narSize,
    name: row.name,
    state: row.state,
    path: content.visiblePath(row),
    storePath,
    references,
    deriver,
    ca,
    signatures: row.signatures,
    vouchedBy: row.vouchedBy,
    private: row.isPrivate,
    source: row.source,
    createdAt: row.createdAt.toISOString(),
    verifiedAt: row.verifiedAt?.toISOString() ?? null,
    provenAt: row.provenAt?.toISOString() ?? null,
    usedAt: row.usedAt.toISOString(),
    pinned: row.pinnedAt !== null,
    reason: row.reason,
    reasonCode: row.state === 'verified' ? null : reasonOf(catalog, row),
    note,
  }
}

function reasonOf(catalog: Pick<Catalog, 'journal'>, { narHash }: ImageRow): ReasonCode | null {
  const last = catalog.journal(narHash).at(-1)
  return last === undefined ? null : reasonCode(last)
}

/** An image with its whole journal. */
export async function presentDetails({ catalog, content }: { readonly catalog: Pick<Catalog, 'journal' | 'getByStorePath' | 'registrations' | 'names'> } & ShownBy, row: ImageRow, keys: readonly PublicKey[] = []) {
  return {
    ...presentImage({ catalog, content }, row),
    otherStorePaths: catalog.registrations(row.narHash).filter(({ storePath, vouchedBy }) => vouchedBy !== null && storePath !== row.storePath).map(({ storePath }) => storePath),
    publishedNames: catalog.names.list().filter(({ record }) => record.narHash.equals(row.narHash)).map(kept => presentName(kept, keys)),
    closure: await presentClosure(catalog, row),
    journal: catalog.journal(row.narHash).map(presentEntry),
  }
}

/** Null where there is none: the image is not verified, nobody vouches for its store path, or what is said of it makes no sense. */
async function presentClosure(catalog: Pick<Catalog, 'getByStorePath' | 'registrations'>, row: ImageRow) {
  const root = row.state === 'verified' ? memberOf(catalog, row) : undefined
  if (root === undefined || root.registration.vouchedBy === null) return null
  const { members, missing } = await findClosure(catalog, root).catch((error: unknown) => {
    if (isNarvikError(error, 'conflict', 'too-large')) return { members: [], missing: [] }
    throw error
  })
  if (members.length === 0) return null
  return { paths: members.length, narSize: members.reduce((sum, member) => sum + (member.row.narSize ?? 0), 0), missing }
}

export function presentVerification({ row, verdict, repaired }: VerifyResult) {
  return { narHash: row.narHash.toSri(), name: row.name, verdict: verdict.verdict, stages: verdict.stages, reason: verdict.reason, ...repaired && { repaired } }
}

/** Work of this host on an image, as a transfer. */
export function presentTransfer({ catalog, queue }: { readonly catalog: Pick<Catalog, 'get'>, readonly queue: Pick<FetchQueue, 'list'> }, { narHash, progress, startedAt }: Job<unknown>) {
  const shown: Progress & { narHash: string } = { ...progress, narHash: narHash.toSri() }
  const position = queue.list().findIndex(waiting => waiting.narHash.equals(narHash))
  return { ...shown, name: catalog.get(narHash)?.name ?? null, direction: 'in' as const, queuePosition: position < 0 ? null : position + 1, startedAt: startedAt.toISOString() }
}

/** What is being sent of each image, to all peers together. */
export function presentSending(catalog: Pick<Catalog, 'get'>, sending: readonly Sending[]) {
  return Array.from(Map.groupBy(sending, ({ narHash }) => narHash.toSri()), ([narHash, all]) => {
    const peers = all.map(({ peerId, sent, startedAt }) => ({ peerId, bytes: sent, bytesPerSecond: Math.round(sent * 1000 / Math.max(1, Date.now() - startedAt)) }))
    const sum = (pick: (peer: (typeof peers)[number]) => number): number => peers.reduce((total, peer) => total + pick(peer), 0)
    const [first] = all
    const row = first && catalog.get(first.narHash)
    return {
      narHash, name: row?.name ?? null, direction: 'out' as const, phase: 'sending' as const, queuePosition: null, totalBytes: null, peers,
      bytes: sum(({ bytes }) => bytes), bytesPerSecond: sum(({ bytesPerSecond }) => bytesPerSecond), startedAt: new Date(Math.min(...all.map(({ startedAt }) => startedAt))).toISOString(),
    }
  })
}

export function presentPeer({ connectedSince, received, sent, ...peer }: PeerInfo) {
  return { ...peer, connectedSince: connectedSince?.toISOString() ?? null, bytesReceived: received, bytesSent: sent }
}

export function presentBan({ peerId, reason, since, until, times }: Ban) {
  return { peerId, reason, since: new Date(since).toISOString(), until: new Date(until).toISOString(), times }
}

/** `keys` are those that are trusted. */
export function presentName({ record: { name, publisher, narHash, seq, publishedAt, expires }, own }: Pick<KeptName, 'record' | 'own'>, keys: readonly PublicKey[]) {
  return {
    name, publisher, narHash: narHash.toSri(), seq, publishedAt: new Date(publishedAt).toISOString(), expiresAt: new Date(expires).toISOString(),
    trusted: keys.some(key => publisherId(formatPublicKey(key)) === publisherId(publisher)), own,
  }
}

function presentEntry({ at, from, to, event, reason, evidence }: JournalEntry) {
  return { at: at.toISOString(), from, to, event, reason, code: reasonCode({ event, evidence }), evidence }
}
