import { formatBytes } from '../byte-size.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Ref } from '../image/ref.ts'
import { isPolicyRefusal, type PeerShare, type Sources } from '../image/verdict.ts'
import { ASKED_FOR, IMPORTED, type ImageRow, type JournalEntry } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import type { Job } from './jobs.ts'
import { explainNames, refusedNames } from './explain-names.ts'
import { lookUp, requireImage } from './refs.ts'

/** Lines of what was tried that are told; older ones are in the journal. */
const TRIES_TOLD = 50

/**
 * Tells why an image is where it is, where its bytes came from, and what happens next; and of its names who published them, when, and why they are
 * not accepted. Of a name without an image here, the names alone; of a NAR hash that was here, what became of it.
 * @throws NarvikError `not-found` where there never was such an image, nor a record of such a name.
 */
export function explainImage(context: Explained, ref: Ref) {
  const row = lookUp(context.catalog, ref)
  const question = ref.kind === 'name' ? { narHash: row?.narHash, name: ref.name, publisher: ref.publisher } : { narHash: row?.narHash, name: row?.name ?? undefined }
  const names = { names: explainNames(context, question), refusedNames: refusedNames(context, question) }
  const isHeardOf = names.names.length > 0 || names.refusedNames.length > 0
  const absent = row !== undefined ? undefined
    : ref.kind === 'nar-hash' ? explainGone(context, ref.narHash)
    : isHeardOf ? WITHOUT_IMAGE
    : undefined
  return { ...absent ?? explainRow(context, row ?? requireImage(context.catalog, ref)), ...names }
}

type Explained = Pick<TaskContext, 'catalog' | 'jobs' | 'node' | 'queue' | 'settings'>

const WITHOUT_IMAGE = {
  narHash: null, narSize: null, name: null, state: null, why: 'no image of this host has the name', reason: null, peers: [], reused: [], zeros: 0, wasted: 0, repaired: 0, refused: [], tried: [],
  next: 'narvik fetch looks for it in the fleet',
}

/** Of an image that was here, or was to be: its journal stays, and says why it went. */
function explainGone({ catalog }: Pick<Explained, 'catalog'>, narHash: NarHash) {
  const journal = catalog.journal(narHash)
  const last = journal.at(-1)
  if (last === undefined) return undefined
  return {
    ...WITHOUT_IMAGE, ...booksOf(journal), narHash: narHash.toSri(), why: `it is not here any more since ${secondOf(last.at)}`, reason: last.reason, refused: refusals(journal), tried: tries(journal),
  }
}

function explainRow({ catalog, jobs, queue }: Pick<Explained, 'catalog' | 'jobs' | 'queue'>, row: ImageRow) {
  const journal = catalog.journal(row.narHash)
  const job = jobs.find(row.narHash)
  const books = booksOf(journal)
  return {
    narHash: row.narHash.toSri(),
    narSize: row.narSize,
    name: row.name,
    state: row.state,
    why: whyHere(row, journal),
    reason: row.state === 'verified' ? null : row.reason === null || row.reason === ASKED_FOR ? 'its bytes are not here yet' : row.reason,
    ...books,
    peers: sharesOf(job, books.peers),
    refused: refusals(journal),
    tried: tries(journal),
    next: whatNext(row, journal, job, queue),
  }
}

function tries(journal: readonly JournalEntry[]): { at: string, event: string, reason: string }[] {
  return journal.slice(-TRIES_TOLD).map(({ at, event, reason }) => ({ at: at.toISOString(), event, reason }))
}

function secondOf(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`
}

interface WhereFrom extends Sources {
  readonly peers: readonly PeerShare[]
  /** Bytes that were brought again since. */
  readonly repaired: number
}

/** Where the bytes came from: what the newest evidence of the whole says, and what was repaired since. */
function booksOf(journal: readonly JournalEntry[]): WhereFrom {
  const told = journal.flatMap(({ evidence }) => evidence?.peers === undefined ? [] : [evidence])
  const whole = told.findLastIndex(({ repaired }) => repaired === undefined)
  return told.slice(Math.max(whole, 0)).reduce<WhereFrom>((sum, { peers = [], sources, repaired = 0 }) => ({
    peers: addUp(sum.peers, peers, ({ peerId }) => peerId, (one, other) => ({ ...one, bytes: one.bytes + other.bytes, wasted: (one.wasted ?? 0) + (other.wasted ?? 0), ...one.outcome !== 'lied' && (other.bytes > 0 || other.outcome === 'lied' || one.bytes === 0) && { outcome: other.outcome, detail: other.detail } })),
    reused: addUp(sum.reused, sources?.reused ?? [], ({ narHash }) => narHash, (one, other) => ({ ...one, bytes: one.bytes + other.bytes })),
    zeros: sum.zeros + (sources?.zeros ?? 0),
    wasted: sum.wasted + (sources?.wasted ?? 0),
    repaired: sum.repaired + repaired,
  }), { peers: [], reused: [], zeros: 0, wasted: 0, repaired: 0 })
}

/** Those of both lists, each once. */
function addUp<Item>(some: readonly Item[], more: readonly Item[], keyOf: (item: Item) => string, join: (one: Item, other: Item) => Item): Item[] {
  const all = new Map(some.map(item => [keyOf(item), item]))
  for (const item of more) {
    const known = all.get(keyOf(item))
    all.set(keyOf(item), known === undefined ? item : join(known, item))
  }
  return [...all.values()]
}

function whyHere({ source, askedBy, createdAt }: ImageRow, journal: readonly JournalEntry[]): string {
  const since = journal.findLast(({ event }) => event === 'create')?.reason
  const at = secondOf(createdAt)
  if (source === 'import' || since === IMPORTED) return `it was imported on this host at ${at}`
  const by = { 'nar-hash': 'its NAR hash', 'store-path': 'its store path', 'name': 'its name' }[askedBy]
  return `it was asked for by ${by} at ${at}${since === undefined || since === ASKED_FOR ? '' : ` (${since})`}`
}

/** While it is received, what came so far; then what the evidence says. */
function sharesOf(job: Job<unknown> | undefined, settled: readonly PeerShare[]): readonly PeerShare[] {
  if (job?.progress.phase !== 'receiving') return settled
  const arriving = job.progress.peers.map(({ peerId, bytes }): PeerShare => ({ peerId, bytes, outcome: 'used', detail: null }))
  return [...arriving, ...settled.filter(({ peerId }) => !arriving.some(one => one.peerId === peerId))]
}

/** Who lied, failed or was refused, with what was held against them; the last word on each. */
function refusals(journal: readonly JournalEntry[]): { by: string, detail: string }[] {
  const last = new Map<string, string>()
  for (const { evidence } of journal) {
    for (const { peerId, outcome, detail } of evidence?.peers ?? []) {
      if (outcome === 'lied' || outcome === 'failed') last.set(peerId, `${outcome}: ${detail ?? 'its bytes were not those of the image'}`)
      else last.delete(peerId)
    }
    for (const { stage, verdict, detail } of evidence?.verdict?.stages ?? []) {
      if (verdict === 'fail') last.set(`stage ${stage}`, detail)
      else last.delete(`stage ${stage}`)
    }
  }
  return Array.from(last, ([by, detail]) => ({ by, detail }))
}

/** What holds up work on an image, and until when; undefined where nothing does. */
function heldUp({ narHash }: ImageRow, job: Job<unknown> | undefined, queue: TaskContext['queue']): string | undefined {
  if (job?.progress.phase === 'paused') return 'it is paused until there is room on the disk; narvik du shows what takes it'
  const waiting = queue.list()
  const at = waiting.findIndex(place => place.narHash.equals(narHash))
  return at < 0 ? undefined : `it has a provider and waits for its turn, number ${at + 1} of ${waiting.length}; narvik queue shows them, and can move it`
}

function whatNext(row: ImageRow, journal: readonly JournalEntry[], job: Job<unknown> | undefined, queue: TaskContext['queue']): string {
  const held = heldUp(row, job, queue)
  if (held !== undefined) return held
  switch (row.state) {
    case 'verified': return row.isPrivate ? 'it stays on this host: it is private' : 'it is served to peers, and announced where the policy of this host allows it'
    case 'quarantined': return 'its NAR hash is recomputed; it is shown when that is right'
    case 'rejected': return afterRejection(journal)
    case 'receiving': return `${formatBytes(job?.progress.bytes ?? 0)} of ${row.narSize === null ? 'an unknown size' : formatBytes(row.narSize)} is here; when all of it is, its NAR hash is recomputed`
    case 'wanted': return job === undefined
      ? 'it is looked for every 10 s and whenever a peer connects'
      : 'providers are being looked for'
  }
}

function afterRejection(journal: readonly JournalEntry[]): string {
  const verdict = journal.findLast(({ event }) => event === 'fail')?.evidence?.verdict
  if (verdict !== undefined && isPolicyRefusal(verdict)) return 'its bytes are right; narvik fetch accepts it once it has enough signatures of trusted keys'
  const last = journal.slice(-2).map(({ event }) => event).join()
  if (last === 'damage,fail') return 'it stays out of reach; narvik verify --repair brings the parts that are wrong, narvik rm drops it'
  return 'it stays out of reach; narvik fetch tries again, narvik rm drops it'
}
