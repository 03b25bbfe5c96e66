import type { Ref } from '../image/ref.ts'
import type { TaskContext } from './context.ts'
import { describeChunks } from './describe-chunks.ts'
import { explainImage } from './explain-image.ts'
import type { Events, HostEventListener } from './events.ts'
import { exportImage, type ExportRequest } from './export-image.ts'
import { cancelFetch } from './cancel-fetch.ts'
import { collectGarbage, type CollectGarbageRequest } from './collect-garbage.ts'
import { fetchAndInstall, type FetchAndInstallRequest } from './fetch-and-install.ts'
import { importClosure } from './import-closure.ts'
import { importImage, type ImportRequest } from './import-image.ts'
import { installImage, type InstallRequest } from './install-image.ts'
import { liftBan } from './lift-ban.ts'
import { makePrivate } from './make-private.ts'
import { pinImage } from './pin-image.ts'
import { presentBan, presentDetails, presentImage, presentName, presentPeer, presentSending, presentTransfer, presentVerification } from './present.ts'
import { publishName } from './published-names.ts'
import { describeQueue, moveInQueue } from './queue.ts'
import { repairImages } from './repair-image.ts'
import { requireImage } from './refs.ts'
import { removeImage } from './remove-image.ts'
import { describeStatus, type HostFacts } from './status.ts'
import { describeUsage } from './usage.ts'
import { verifyImages, type VerifyRequest } from './verify-image.ts'

interface Watched {
  readonly events: Events
  readonly metrics: { readonly text: () => Promise<string> }
}

interface Whole {
  /** Whether everything that it refers to is meant as well. */
  readonly closure?: boolean | undefined
}

/** Kinds of work that move an image and are shown as transfers. */
const TRANSFERS = new Set(['fetch', 'resume'])

/** The verbs of this host, with answers as they are shown. */
export function createTasks(context: TaskContext, facts: HostFacts, { events, metrics }: Watched) {
  const { catalog, jobs, node } = context
  return {
    importImage: async (request: ImportRequest & Whole) => presentImage(context, await (request.closure === true ? importClosure : importImage)(context, request)),
    fetchImage: async (request: FetchAndInstallRequest) => presentImage(context, await fetchAndInstall(context, request)),
    verifyImages: async (request: VerifyRequest & { readonly repair?: boolean | undefined }) => ({ results: (await (request.repair === true ? repairImages : verifyImages)(context, request)).map(presentVerification) }),
    exportImage: async (request: ExportRequest) => ({ path: await exportImage(context, request) }),
    installImage: async (request: InstallRequest) => installImage(context, request),
    makePrivate: (request: { readonly ref: Ref, readonly private: boolean }) => presentImage(context, makePrivate(context, request)),
    removeImage: async (request: { readonly ref: Ref }) => presentImage(context, await removeImage(context, request)),
    cancelFetch: async (request: { readonly ref: Ref }) => presentImage(context, await cancelFetch(context, request)),
    queue: () => describeQueue(context),
    moveInQueue: (request: { readonly ref: Ref, readonly position: number }) => moveInQueue(context, request),
    pinImage: (request: { readonly ref: Ref, readonly pinned: boolean }) => presentImage(context, pinImage(context, request)),
    collectGarbage: async (request: CollectGarbageRequest) => collectGarbage(context, request),
    usage: async ({ signal }: { readonly signal: AbortSignal }) => describeUsage(context, { signal }),
    list: () => catalog.list().map(row => presentImage(context, row)),
    show: (ref: Ref) => presentDetails(context, requireImage(catalog, ref), context.settings.trust.keys),
    explain: (ref: Ref) => explainImage(context, ref),
    chunks: (ref: Ref) => describeChunks(context, ref),
    status: () => describeStatus(context, facts),
    peers: () => node.peers().map(presentPeer),
    publishName: async ({ record }: { readonly record: Uint8Array }) => presentName({ record: await publishName(context, record), own: true }, context.settings.trust.keys),
    names: () => catalog.names.list().map(kept => presentName(kept, context.settings.trust.keys)),
    bans: () => node.bans().map(presentBan),
    unban: ({ peerId }: { readonly peerId: string }) => presentBan(liftBan(context, peerId)),
    metrics: () => metrics.text(),
    follow: (listener: HostEventListener) => events.follow(listener),
    transfers: () => [...jobs.list().filter(job => TRANSFERS.has(job.kind)).map(job => presentTransfer(context, job)), ...presentSending(catalog, node.sending)],
  }
}
