import { Worker } from 'node:worker_threads'
import { type ErrorCode, messageOf, NarvikError } from '../../errors.ts'
import type { ChunkColumns } from '../../image/chunk-list.ts'
import type { ListingColumns } from '../../image/listing.ts'
import { TREE_THREAD_PATIENCE_MS } from '../../limits.ts'
import type { StampColumns } from '../file-stamps.ts'
import type { SharedFrontier } from './frontier.ts'

/** What can be done with the tree at `root`. */
export type TreeTask =
  | { readonly task: 'scan' | 'open' | 'remove' | 'measure', readonly root: string }
  | { readonly task: 'seal', readonly root: string, readonly stamped?: { readonly columns: ListingColumns, readonly stamps: StampColumns } | undefined }
  | { readonly task: 'follow', readonly root: string, readonly columns: ListingColumns, readonly frontier: SharedFrontier }
  | { readonly task: 'hash', readonly root: string, readonly chunks: boolean }
  | { readonly task: 'copy', readonly root: string, readonly to: string }
  | { readonly task: 'unpack', readonly root: string, readonly nar: Uint8Array<ArrayBuffer> }
  | { readonly task: 'skeleton', readonly root: string, readonly columns: ListingColumns }

/**
 * A task; a shared number that is other than 0 once nobody waits for the answer; one that changes with each step that the thread takes; and whether no other
 * thread of this kind was there when it began.
 */
export type TreeJob = TreeTask & { readonly cancelled: Int32Array<SharedArrayBuffer>, readonly steps: Int32Array<SharedArrayBuffer>, readonly bytesPerSecond: number | undefined, readonly isAlone: boolean }

export interface TreeResult {
  readonly columns?: ListingColumns
  readonly narSize?: number
  /** SHA-256 of the NAR. */
  readonly digest?: Uint8Array
  /** Bytes of all files, and of the blocks that they take on disk. */
  readonly apparentBytes?: number
  readonly diskBytes?: number
  readonly chunks?: ChunkColumns
  readonly stamps?: StampColumns
  /** Whether every file had its stamp. */
  readonly isAsStamped?: boolean
}

export type TreeReply =
  | { readonly kind: 'progress', readonly bytes: number }
  | { readonly kind: 'done', readonly result: TreeResult }
  | { readonly kind: 'failed', readonly code: ErrorCode, readonly message: string, readonly hint: string | undefined }
  | { readonly kind: 'cancelled' }

export interface TreeTaskOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((bytesSoFar: number) => void) | undefined
  /** Has it done slowly, when nothing else wants the processor or the disk: the bytes of the NAR in a second. */
  readonly bytesPerSecond?: number | undefined
}

/** Has a task done in another thread, so that this one stays free. @throws what the task throws, or the reason of `signal`. */
export async function runTask(task: TreeTask, { signal, onProgress, bytesPerSecond }: TreeTaskOptions): Promise<TreeResult> {
  signal?.throwIfAborted()
  const isSlow = bytesPerSecond !== undefined
  const isLong = isSlow || task.task === 'follow'
  const worker = await takeWorker({ isLong })
  if (isLong) startLong()
  const cancelled = new Int32Array(new SharedArrayBuffer(4))
  const cancel = (): void => { Atomics.store(cancelled, 0, 1) }
  signal?.addEventListener('abort', cancel)
  if (signal?.aborted === true) cancel()
  try {
    const reply = await ask(worker, { ...task, cancelled, steps: new Int32Array(new SharedArrayBuffer(4)), bytesPerSecond, isAlone: workers === 1 }, onProgress)
    if (reply.kind === 'done') return reply.result
    if (reply.kind === 'failed') throw new NarvikError(reply.code, reply.message, reply.hint === undefined ? {} : { hint: reply.hint })
    signal?.throwIfAborted()
    throw new NarvikError('internal', `Cannot ${task.task} ${task.root}: found the reply '${reply.kind}', needed 'done'`)
  } finally {
    signal?.removeEventListener('abort', cancel)
    if (isLong) longTasks--
    // A thread that has stepped back for the others can't step forward again.
    if (isSlow && !dead.has(worker)) await worker.terminate()
    else giveBack(worker)
  }
}

/** More would only fight for the disk and the cores; each takes some 10 MB. Tasks that last as long as a transfer have threads besides. */
const MAX_WORKERS = 2
/** Milliseconds that a thread without work is kept: starting one takes some 50. */
const IDLE_MS = 5000

const idle: { readonly worker: Worker, readonly timer: NodeJS.Timeout }[] = []
const waiting: ((worker: Worker) => void)[] = []
const dead = new WeakSet<Worker>()
let workers = 0
let longTasks = 0

/** What lasts gets a thread besides, so that those without work are not kept beside it. */
function startLong(): void {
  longTasks++
  for (const { worker, timer } of idle.splice(0)) {
    clearTimeout(timer)
    void worker.terminate()
  }
}

async function takeWorker({ isLong }: { isLong: boolean }): Promise<Worker> {
  const kept = idle.pop()
  if (kept !== undefined) {
    clearTimeout(kept.timer)
    kept.worker.ref()
    return kept.worker
  }
  if (isLong || workers < MAX_WORKERS + longTasks) return startWorker()
  return new Promise(resolve => { waiting.push(resolve) })
}

function startWorker(): Worker {
  // Flags of the process, such as those of a test runner, are not for a thread.
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { execArgv: [] })
  workers++
  worker.once('exit', () => {
    bury(worker)
    const at = idle.findIndex(each => each.worker === worker)
    if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer)
  })
  // Whoever waits for an answer has a listener of his own; without this one an error between two jobs would end the process.
  worker.on('error', () => undefined)
  return worker
}

/** It counts no longer, and whoever waits for a thread gets another one. */
function bury(worker: Worker): void {
  if (dead.has(worker)) return
  dead.add(worker)
  workers--
  if (workers < MAX_WORKERS + longTasks) waiting.shift()?.(startWorker())
}

function giveBack(worker: Worker): void {
  if (dead.has(worker)) return
  const next = waiting.shift()
  if (next !== undefined) {
    next(worker)
    return
  }
  worker.unref()
  idle.push({ worker, timer: setTimeout(() => { retire(worker) }, IDLE_MS).unref() })
}

/** Nobody may take a thread that is about to end. */
function retire(worker: Worker): void {
  const at = idle.findIndex(each => each.worker === worker)
  if (at >= 0) idle.splice(at, 1)
  void worker.terminate()
}

function ask(worker: Worker, job: TreeJob, onProgress: ((bytesSoFar: number) => void) | undefined): Promise<TreeReply> {
  return new Promise((resolve, reject) => {
    const done = (): void => { clearInterval(watch); worker.off('message', onMessage).off('error', onError).off('exit', onExit) }
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
      reject(new NarvikError('internal', `Cannot ${job.task} ${job.root}: found that the thread for it failed (${messageOf(cause)}), needed an answer`, { cause }))
    }
    const onExit = (): void => { onError(new Error('The thread ended')) }
    const watch = setInterval(silenceOf(job, () => {
      done()
      // What hangs in the kernel ends when the kernel lets it: nobody waits for that.
      void worker.terminate()
      bury(worker)
      reject(new NarvikError('internal', `Cannot ${job.task} ${job.root}: found that the thread for it has done nothing for ${TREE_THREAD_PATIENCE_MS / 1000} s, needed an answer`, { hint: 'See whether the disk answers, for instance in the log of the kernel' }))
    }), TREE_THREAD_PATIENCE_MS / LOOKS).unref()
    worker.on('message', onMessage).on('error', onError).on('exit', onExit)
    worker.postMessage(job, job.task === 'unpack' ? [job.nar.buffer] : [])
  })
}

/** How often a thread is seen to stand still before it is taken for dead. Looks are counted, not time: after a sleep of the machine it has had no time either. */
const LOOKS = 10

function silenceOf({ steps }: TreeJob, onSilent: () => void): () => void {
  let seen = -1
  let still = 0
  return () => {
    const now = Atomics.load(steps, 0)
    still = now === seen ? still + 1 : 0
    seen = now
    if (still >= LOOKS) onSilent()
  }
}
