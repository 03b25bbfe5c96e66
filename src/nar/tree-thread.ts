import { Worker } from 'node:worker_threads'
import { type ErrorCode, NarvikError } from '../errors.ts'
import { Listing, type ListingColumns } from '../image/listing.ts'

export interface TreeJob {
  readonly root: string
  /** Whether the contents are hashed too. */
  readonly hash: boolean
  /** Shared: other than 0 once nobody waits for the answer. */
  readonly cancelled: Int32Array<SharedArrayBuffer>
}

export type TreeReply =
  | { readonly kind: 'progress', readonly bytes: number }
  | { readonly kind: 'done', readonly columns: ListingColumns, readonly narSize: number, readonly digest: Uint8Array }
  | { readonly kind: 'failed', readonly code: ErrorCode, readonly message: string, readonly hint: string | undefined }
  | { readonly kind: 'cancelled' }

export interface TreeResult {
  readonly listing: Listing
  readonly narSize: number
  /** SHA-256 of the NAR; empty where it was not asked for. */
  readonly digest: Uint8Array
}

interface ThreadOptions {
  readonly hash: boolean
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((bytesSoFar: number) => void) | undefined
}

/** Walks, and where it is asked for hashes, the tree at `root` in another thread. */
export async function runTreeJob(root: string, { hash, signal, onProgress }: ThreadOptions): Promise<TreeResult> {
  signal?.throwIfAborted()
  const worker = await takeWorker()
  const cancelled = new Int32Array(new SharedArrayBuffer(4))
  const cancel = (): void => { Atomics.store(cancelled, 0, 1) }
  signal?.addEventListener('abort', cancel)
  if (signal?.aborted === true) cancel()
  try {
    const reply = await ask(worker, { root, hash, cancelled }, onProgress)
    if (reply.kind === 'cancelled') signal?.throwIfAborted()
    if (reply.kind === 'failed') throw new NarvikError(reply.code, reply.message, reply.hint === undefined ? {} : { hint: reply.hint })
    if (reply.kind !== 'done') throw new NarvikError('internal', `Cannot hash ${root}: found the reply '${reply.kind}', needed 'done'`)
    return { listing: new Listing(reply.columns), narSize: reply.narSize, digest: reply.digest }
  } finally {
    signal?.removeEventListener('abort', cancel)
    giveBack(worker)
  }
}

/** A thread for hashing one image while another is walked; more would only fight for the disk and the cores. */
const MAX_WORKERS = 2
/** Milliseconds that a thread without work is kept: starting one takes some 50. */
const IDLE_MS = 5000

interface Idle {
  readonly worker: Worker
  readonly timer: NodeJS.Timeout
}

const idle: Idle[] = []
const waiting: ((worker: Worker) => void)[] = []
const dead = new WeakSet<Worker>()
let workers = 0

async function takeWorker(): Promise<Worker> {
  const kept = idle.pop()
  if (kept !== undefined) {
    clearTimeout(kept.timer)
    kept.worker.ref()
    return kept.worker
  }
  if (workers < MAX_WORKERS) return startWorker()
  return new Promise(resolve => { waiting.push(resolve) })
}

function startWorker(): Worker {
  const worker = new Worker(new URL('./tree-worker.ts', import.meta.url))
  workers++
  worker.once('exit', () => {
    workers--
    dead.add(worker)
    const at = idle.findIndex(each => each.worker === worker)
    if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer)
    if (workers < MAX_WORKERS) waiting.shift()?.(startWorker())
  })
  return worker
}

function giveBack(worker: Worker): void {
  if (dead.has(worker)) return
  const next = waiting.shift()
  if (next !== undefined) {
    next(worker)
    return
  }
  worker.unref()
  idle.push({ worker, timer: setTimeout(() => void worker.terminate(), IDLE_MS).unref() })
}

function ask(worker: Worker, job: TreeJob, onProgress: ((bytesSoFar: number) => void) | undefined): Promise<TreeReply> {
  return new Promise((resolve, reject) => {
    const done = (): void => { worker.off('message', onMessage).off('error', onError).off('exit', onExit) }
    const onMessage = (reply: TreeReply): void => {
      if (reply.kind === 'progress') {
        onProgress?.(reply.bytes)
        return
      }
      done()
      resolve(reply)
    }
    const onError = (cause: unknown): void => {
      done()
      reject(new NarvikError('internal', `Cannot hash ${job.root}: found that its thread failed, needed an answer`, { cause }))
    }
    const onExit = (): void => { onError(new Error('The thread ended')) }
    worker.on('message', onMessage).on('error', onError).on('exit', onExit)
    worker.postMessage(job)
  })
}
