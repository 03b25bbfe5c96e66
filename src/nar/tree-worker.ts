import { parentPort } from 'node:worker_threads'
import { messageOf, NarvikError } from '../errors.ts'
import { hashContents } from './hash-walk.ts'
import { narSizeOf } from './layout.ts'
import type { TreeJob, TreeReply } from './tree-thread.ts'
import { walkTree } from './walk.ts'

// The thread in which trees are walked and hashed: takes one job at a time.

const PROGRESS_MS = 100

class Cancelled extends Error {}

parentPort?.on('message', (job: TreeJob) => void run(job))

async function run(job: TreeJob): Promise<void> {
  try {
    const listing = walkTree(job.root, () => { throwIfCancelled(job) })
    const narSize = narSizeOf(listing)
    const digest = job.hash ? await hashContents(job.root, listing, progressOf(job)) : new Uint8Array(0)
    const { columns } = listing
    const buffers: ArrayBuffer[] = [columns.kinds, columns.depths, columns.nameLengths, columns.parents, columns.values, columns.starts, columns.text].map(each => each.buffer)
    reply({ kind: 'done', columns, narSize, digest }, buffers)
  } catch (error) {
    reply(failure(error))
  }
}

function progressOf(job: TreeJob): (bytes: number) => void {
  let next = performance.now() + PROGRESS_MS
  return bytes => {
    throwIfCancelled(job)
    if (performance.now() < next) return
    next = performance.now() + PROGRESS_MS
    reply({ kind: 'progress', bytes })
  }
}

function throwIfCancelled(job: TreeJob): void {
  if (Atomics.load(job.cancelled, 0) !== 0) throw new Cancelled()
}

function failure(error: unknown): TreeReply {
  if (error instanceof Cancelled) return { kind: 'cancelled' }
  if (error instanceof NarvikError) return { kind: 'failed', code: error.code, message: error.message, hint: error.hint }
  return { kind: 'failed', code: 'internal', message: `Cannot hash the tree: ${messageOf(error)}`, hint: undefined }
}

function reply(message: TreeReply, transfer: ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, transfer)
}
