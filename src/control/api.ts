import { z } from 'zod'
import { ERROR_CODES, type ErrorCode } from '../errors.ts'
import type { Ref } from '../image/ref.ts'
import { STATES } from '../image/states.ts'
import type { Evidence, PeerShare, SignatureFinding, StageResult } from '../image/verdict.ts'
import { VOUCHERS } from '../image/voucher.ts'
import { count, rate, sri, time } from './fields.ts'
import type { CollectionJson, QueueJson, UsageJson } from './space-answers.ts'

export * from './requests.ts'
export * from './space-answers.ts'

/**
 * What the control socket speaks: the schemas of every request and answer, used at both ends, and what the server asks
 * of the rest of the daemon. Requests are strict: an unknown field is an error. Of answers the client keeps the fields
 * it knows, so that a newer daemon may add some. docs/CONTROL-API.md describes each; a test compares the two.
 */

export const imageSchema = z.object({
  /** SRI. */
  narHash: sri,
  /** Bytes; null until it is known. */
  narSize: count.nullable(),
  name: z.string().nullable(),
  state: z.enum(STATES),
  /** Where the verified tree is; null in every other state. */
  path: z.string().nullable(),
  storePath: z.string().nullable(),
  references: z.array(z.string()).readonly(),
  deriver: z.string().nullable(),
  ca: z.string().nullable(),
  signatures: z.array(z.string()).readonly(),
  /** Why store path, references, deriver and ca are shown; null: there are none, or only claims, which are not shown. */
  vouchedBy: z.enum(VOUCHERS).nullable(),
  /** Whether it is served to nobody. */
  private: z.boolean(),
  source: z.enum(['import', 'fetch']),
  createdAt: time,
  verifiedAt: time.nullable(),
  /** When its bytes were last proven; null unless it is verified. */
  provenAt: time.nullable(),
  /** When it was last served, fetched, exported or named; may be a minute behind. */
  usedAt: time,
  /** Whether it stays whatever room is needed. */
  pinned: z.boolean(),
  /** Why it is not verified. */
  reason: z.string().nullable(),
  /** The same as a code of docs/REASONS.md. */
  reasonCode: z.string().nullable(),
  /** What a person should know of a good image, for instance why Nix's metadata is absent. */
  note: z.string().nullable(),
})
export type ImageJson = z.output<typeof imageSchema>

const signatureFindingSchema: z.ZodType<SignatureFinding> = z.object({
  text: z.string(),
  keyName: z.string().nullable(),
  verdict: z.enum(['good', 'bad', 'unknown', 'malformed']),
  madeBy: z.string().nullable(),
})

export const stageSchema: z.ZodType<StageResult> = z.object({
  stage: z.string(),
  verdict: z.enum(['pass', 'fail', 'skipped']),
  detail: z.string(),
  expected: z.exactOptional(z.string()),
  found: z.exactOptional(z.string()),
  milliseconds: rate,
  signatures: z.exactOptional(z.array(signatureFindingSchema)),
})

const peerShareSchema: z.ZodType<PeerShare> = z.object({
  peerId: z.string(),
  bytes: count,
  wasted: z.exactOptional(count),
  outcome: z.enum(['used', 'lied', 'failed', 'discarded']),
  detail: z.string().nullable(),
})
const reusedSchema = z.array(z.object({ narHash: z.string(), bytes: count })).readonly()

export const evidenceSchema: z.ZodType<Evidence> = z.object({
  verdict: z.exactOptional(z.object({
    verdict: z.enum(['pass', 'fail']),
    stages: z.array(stageSchema),
    reason: z.string().nullable(),
  })),
  peers: z.exactOptional(z.array(peerShareSchema)),
  sources: z.exactOptional(z.object({
    reused: reusedSchema,
    zeros: count,
    wasted: count,
  })),
  repaired: z.exactOptional(count),
  notes: z.exactOptional(z.array(z.string())),
  error: z.exactOptional(z.string()),
})

export const journalEntrySchema = z.object({
  at: time,
  from: z.enum(STATES).nullable(),
  to: z.enum(STATES).nullable(),
  event: z.string(),
  reason: z.string(),
  /** The reason as a code of docs/REASONS.md; null where the image became verified or was removed. */
  code: z.string().nullable(),
  evidence: evidenceSchema.nullable(),
})
export type JournalEntryJson = z.output<typeof journalEntrySchema>

export const publishedNameSchema = z.object({
  name: z.string(),
  /** The public key, as Nix writes it. */
  publisher: z.string(),
  narHash: sri,
  seq: count,
  publishedAt: time,
  expiresAt: time,
  /** Whether the configuration trusts the publisher. */
  trusted: z.boolean(),
  /** Whether this host has published it, and keeps it in the DHT. */
  own: z.boolean(),
})
export type PublishedNameJson = z.output<typeof publishedNameSchema>
export const publishedNameListSchema = z.array(publishedNameSchema)

/** An image with its whole journal, oldest entry first. */
export const imageDetailsSchema = imageSchema.extend({
  /** Further store paths with the same contents. */
  otherStorePaths: z.array(z.string()).readonly(),
  /** The published names that stand for it. */
  publishedNames: publishedNameListSchema.readonly(),
  /** The store path with everything that it refers to, as far as it is verified here; null for what is none, or not verified. */
  closure: z.object({
    paths: count,
    /** Bytes of all NARs. */
    narSize: count,
    /** Store paths that are needed and not verified here. */
    missing: z.array(z.string()).readonly(),
  }).nullable(),
  journal: z.array(journalEntrySchema).readonly(),
})
export type ImageDetailsJson = z.output<typeof imageDetailsSchema>

/** Why an image is where it is, and what its names are worth. */
export const explanationSchema = z.object({
  /** null where this host has no image of the name that was asked about. */
  narHash: sri.nullable(),
  narSize: count.nullable(),
  name: z.string().nullable(),
  state: z.enum(STATES).nullable(),
  /** Why it is on this host. */
  why: z.string(),
  /** Why it is not verified; null where it is. */
  reason: z.string().nullable(),
  /** What each peer sent, as the newest evidence says, or so far. */
  peers: z.array(peerShareSchema).readonly(),
  /** Bytes that other images of this host had. */
  reused: reusedSchema,
  /** Bytes of zeros, which nobody sends. */
  zeros: count,
  /** Bytes that came in vain. */
  wasted: count,
  /** Bytes that were wrong on disk later and were brought again; they are among the others. */
  repaired: count,
  /** Who lied or failed, and which stages failed it. */
  refused: z.array(z.object({ by: z.string(), detail: z.string() })).readonly(),
  /** What was tried, oldest first. */
  tried: z.array(z.object({ at: time, event: z.string(), reason: z.string() })).readonly(),
  /** What happens next. */
  next: z.string(),
  /** What publishers say of its name, as far as this host has heard. */
  names: z.array(publishedNameSchema.extend({
    accepted: z.boolean(),
    /** What it leads to, or why it is not accepted. */
    verdict: z.string(),
  })).readonly(),
  /** Records of the name that were refused; `publisherKey` in hex. */
  refusedNames: z.array(z.object({ name: z.string(), publisherKey: z.string(), at: time, reason: z.string() })).readonly(),
})
export type ExplanationJson = z.output<typeof explanationSchema>

export const imageListSchema = z.array(imageSchema)

export const verifyResultSchema = z.object({
  narHash: sri,
  name: z.string().nullable(),
  verdict: z.enum(['pass', 'fail']),
  stages: z.array(stageSchema).readonly(),
  reason: z.string().nullable(),
  repaired: z.exactOptional(z.object({ bytes: count, received: count })),
})
export const verifyReportSchema = z.object({ results: z.array(verifyResultSchema).readonly() })
export type VerifyReportJson = z.output<typeof verifyReportSchema>

export const exportResultSchema = z.object({ path: z.string() })
export type ExportResultJson = z.output<typeof exportResultSchema>

export const installResultSchema = z.object({
  storePath: z.string(),
  /** The paths that were not valid before. */
  added: z.array(z.string()).readonly(),
})
export type InstallResultJson = z.output<typeof installResultSchema>

export const statusSchema = z.object({
  peerId: z.string(),
  /** Multiaddrs that other hosts can dial, each with the peer id. */
  addresses: z.array(z.string()).readonly(),
  version: z.string(),
  uptimeSeconds: rate,
  /** Connected peers. */
  peers: count,
  /** Peers in the routing table of the DHT. */
  dhtPeers: count,
  /** Images per state. */
  images: z.object({ wanted: count, receiving: count, quarantined: count, verified: count, rejected: count }),
  dataDir: z.string(),
  socket: z.string(),
  /** Bytes free where the data directory is. */
  freeBytes: count,
  /** Why fetches are paused; null where they are not. */
  paused: z.string().nullable(),
  /** Proving again what is here. */
  scrub: z.object({
    /** When an image was last proven again; null where none ever was. */
    lastAt: time.nullable(),
    /** When the next one is due; null where nothing is, or the scrub is turned off. */
    nextAt: time.nullable(),
    /** The image that is being proven; null where none is. */
    underWay: sri.nullable(),
    /** Images that were found damaged since the daemon was started. */
    damaged: count,
  }),
  /** Whether a fleet key keeps strangers out. */
  fleet: z.boolean(),
  /** The Nix that was found; `detail` is its version, or why there is none. */
  nix: z.object({ available: z.boolean(), detail: z.string() }),
})
export type StatusJson = z.output<typeof statusSchema>

export const peerSchema = z.object({
  peerId: z.string(),
  addresses: z.array(z.string()).readonly(),
  /** Who opened the connection; null where there is none now, as with a banned peer. */
  direction: z.enum(['inbound', 'outbound']).nullable(),
  latencyMs: rate.nullable(),
  agent: z.string().nullable(),
  connectedSince: time.nullable(),
  banned: z.boolean(),
  bytesReceived: count,
  bytesSent: count,
})
export type PeerJson = z.output<typeof peerSchema>
export const peerListSchema = z.array(peerSchema)

export const banSchema = z.object({
  peerId: z.string(),
  reason: z.string(),
  since: time,
  until: time,
  /** Bans of the peer that this host remembers, this one included; each takes twice as long as the one before. */
  times: count,
})
export type BanJson = z.output<typeof banSchema>
export const banListSchema = z.array(banSchema)

export const PHASES = ['queued', 'paused', 'finding', 'receiving', 'hashing', 'copying', 'verifying', 'publishing', 'installing', 'sending'] as const
export type Phase = (typeof PHASES)[number]

const progressFields = {
  /** The image that it is about; null until it is known. */
  narHash: sri.nullable(),
  phase: z.enum(PHASES),
  /** Bytes of the NAR that this phase is done with. */
  bytes: count,
  totalBytes: count.nullable(),
  bytesPerSecond: rate,
  /** The peers that send, with what was taken from each. */
  peers: z.array(z.object({ peerId: z.string(), bytes: count, bytesPerSecond: z.exactOptional(rate) })).readonly(),
}
export const progressSchema = z.object(progressFields)
export type Progress = z.output<typeof progressSchema>

/** Work on an image that is under way, for this host or for a peer. */
export const transferSchema = z.object({
  ...progressFields,
  narHash: sri,
  name: z.string().nullable(),
  /** `in`: this host receives; `out`: this host sends. */
  direction: z.enum(['in', 'out']),
  /** While it waits for its turn: 1 is the next; null otherwise. */
  queuePosition: count.nullable(),
  startedAt: time,
})
export type TransferJson = z.output<typeof transferSchema>
export const transferListSchema = z.array(transferSchema)

/** How much of an image is here and where in it, in a few pieces of the same number of chunks. */
export const chunkMapSchema = z.object({
  narHash: sri,
  state: z.enum(STATES),
  /** Chunks of the image, and those of them that are here and proven; null where it is not being received in chunks. */
  chunks: z.object({ count, proven: count }).nullable(),
  /** Bytes of the NAR that are here. */
  bytes: count,
  totalBytes: count.nullable(),
  /** A byte for each piece of the NAR, in its order, as base64: 0 for nothing of it, 255 for all; none where nothing is known. */
  cells: z.string(),
})
export type ChunkMapJson = z.output<typeof chunkMapSchema>

export const errorBodySchema = z.object({
  /** A code that only a newer daemon knows reads as `internal`. */
  code: z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]).catch('internal'),
  message: z.string(),
  hint: z.string().nullable(),
})
export type ErrorBody = z.output<typeof errorBodySchema>
export const errorAnswerSchema = z.object({ error: errorBodySchema })

/** One line of an answer of type `application/x-ndjson`: progress as it goes, then one `result` or one `error`. */
export const eventSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('progress'), ...progressFields }),
  z.object({ type: z.literal('result'), result: z.unknown() }),
  z.object({ type: z.literal('error'), error: errorBodySchema }),
])
export type ControlEvent = z.output<typeof eventSchema>

const image = { narHash: sri, name: z.string().nullable() }

/** What happens on this host, as `GET /v1/events` tells it. */
export const hostEventSchema = z.discriminatedUnion('type', [
  /** A change of state; `event` and `code` are those of the journal. */
  z.object({ at: time, type: z.literal('image'), ...image, event: z.string(), from: z.enum(STATES).nullable(), to: z.enum(STATES).nullable(), reason: z.string(), code: z.string().nullable() }),
  /** Work on an image; `code` and `reason` are those of the error where it failed. */
  z.object({ at: time, type: z.literal('work'), ...image, kind: z.string(), event: z.enum(['started', 'done', 'failed']), code: z.string().nullable(), reason: z.string().nullable() }),
  z.object({ at: time, type: z.literal('peer'), peerId: z.string(), event: z.enum(['connected', 'disconnected', 'banned']), reason: z.string().nullable() }),
  /** A warning or an error of the daemon's log. */
  z.object({ at: time, type: z.literal('log'), level: z.enum(['warn', 'error']), message: z.string(), fields: z.record(z.string(), z.string()) }),
  /** Events that were left out, because the reader was slow. */
  z.object({ at: time, type: z.literal('lost'), count }),
])
export type HostEvent = z.output<typeof hostEventSchema>

export const EVENT_STREAM = 'application/x-ndjson'

export type Awaitable<T> = T | Promise<T>

export interface LongWork {
  readonly onProgress: (progress: Progress) => void
  /**
   * Aborts when the one who asked has gone away, or the daemon stops (then with an `interrupted` NarvikError as its
   * reason). It says nothing about others who wait for the same image: they have their own.
   */
  readonly signal: AbortSignal
}

/** What the control server asks of the daemon. Every failure is a NarvikError; `not-found` for an unknown reference. */
export interface Tasks {
  importImage(request: { readonly path: string, readonly name?: string, readonly closure?: boolean, readonly private?: boolean } & LongWork): Promise<ImageJson>
  fetchImage(request: { readonly ref: Ref, readonly name?: string, readonly closure?: boolean, readonly timeoutSeconds?: number, readonly priority?: number } & LongWork): Promise<ImageJson>
  /** The image as it was. */
  cancelFetch(request: { readonly ref: Ref }): Promise<ImageJson>
  queue(): Awaitable<QueueJson>
  /** The queue as it is then. */
  moveInQueue(request: { readonly ref: Ref, readonly position: number }): Awaitable<QueueJson>
  verifyImages(request: { readonly ref: Ref | 'all', readonly repair?: boolean | undefined } & LongWork): Promise<VerifyReportJson>
  exportImage(request: { readonly ref: Ref, readonly dest: string } & LongWork): Promise<ExportResultJson>
  installImage(request: { readonly ref: Ref, readonly closure?: boolean, readonly checkSignatures?: boolean } & LongWork): Promise<InstallResultJson>
  makePrivate(request: { readonly ref: Ref, readonly private: boolean }): Awaitable<ImageJson>
  /** The image as it was. */
  removeImage(request: { readonly ref: Ref }): Promise<ImageJson>
  pinImage(request: { readonly ref: Ref, readonly pinned: boolean }): Awaitable<ImageJson>
  collectGarbage(request: { readonly freeBytes?: number, readonly dryRun?: boolean } & LongWork): Promise<CollectionJson>
  usage(work: LongWork): Promise<UsageJson>
  list(): Awaitable<ImageJson[]>
  show(ref: Ref): Awaitable<ImageDetailsJson>
  explain(ref: Ref): Awaitable<ExplanationJson>
  chunks(ref: Ref): Awaitable<ChunkMapJson>
  status(): Awaitable<StatusJson>
  peers(): Awaitable<PeerJson[]>
  publishName(request: { readonly record: Uint8Array }): Awaitable<PublishedNameJson>
  /** The newest record that was seen of each published name. */
  names(): Awaitable<PublishedNameJson[]>
  /** The bans that are in force. */
  bans(): Awaitable<BanJson[]>
  /** The ban as it was; `not-found` where there is none in force. */
  unban(request: { readonly peerId: string }): Awaitable<BanJson>
  transfers(): Awaitable<TransferJson[]>
  /** Calls `listener` with everything that happens from now on; returns how to stop that. */
  follow(listener: (event: HostEvent) => void): () => void
  /** In Prometheus' text format. */
  metrics(): Promise<string>
}
