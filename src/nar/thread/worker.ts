import { lstatSync, readlinkSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { basename } from 'node:path'
import { parentPort } from 'node:worker_threads'
import { messageOf, NarvikError } from '../../errors.ts'
import { Listing, type ListingColumns } from '../../image/listing.ts'
import { FileStamps } from '../file-stamps.ts'
import { narSizeOf } from '../layout.ts'
import { restoreNar } from '../restore.ts'
import { copyNow } from './copy.ts'
import { setHashed } from './frontier.ts'
import { hashContents } from './hash-contents.ts'
import { openNow } from './open.ts'
import type { TreeJob, TreeReply, TreeResult } from './pool.ts'
import { removeNow } from './remove.ts'
import { measureFiles } from './measure-files.ts'
import { measureNow } from './measure.ts'
import { sealNow, type Stamped } from './seal.ts'
import { makeSkeleton } from './skeleton.ts'
import { walkNames, walkTree } from './walk.ts'

// The thread in which trees are handled: it takes one job at a time, and uses the file system without waiting turns.

const PROGRESS_MS = 100

class Cancelled extends Error {}

parentPort?.on('message', (job: TreeJob) => void run(job))

async function run(job: TreeJob): Promise<void> {
  const check = checkOf(job)
  try {
    const result = await perform(job, check)
    reply({ kind: 'done', result }, buffersOf(result))
  } catch (error) {
    reply(failure(error))
  }
}

async function perform(job: TreeJob, check: (bytes?: number) => void): Promise<TreeResult> {
  switch (job.task) {
    case 'scan': return { columns: walkTree(job.root, check).columns }
    case 'hash': return hash(job, check)
    case 'copy': copyTo(job.root, job.to, check); return {}
    case 'skeleton': return { stamps: makeSkeleton(job.root, new Listing(job.columns), check).columns }
    case 'seal': return { isAsStamped: await sealNow(job.root, stampsOf(job), check) }
    case 'follow': return follow(job, check)
    case 'unpack': await unpack(job.root, job.nar, check); return {}
    case 'open': openNow(job.root, check); return {}
    case 'remove': removeNow(job.root, check); return {}
    case 'measure': return measureNow(job.root, check)
  }
}

async function hash({ root, chunks, isAlone }: Extract<TreeJob, { task: 'hash' }>, check: (bytes?: number) => void): Promise<TreeResult> {
  const listing = walkNames(root, check)
  await measureFiles(root, listing, check)
  const narSize = narSizeOf(listing)
  const found = await hashContents(root, listing, { check, chunks, isAlone })
  return { digest: found.digest, narSize, columns: listing.columns, ...found.chunks && { chunks: found.chunks.columns } }
}

async function follow({ root, columns, frontier }: Extract<TreeJob, { task: 'follow' }>, check: () => void): Promise<TreeResult> {
  const found = await hashContents(root, new Listing(columns), {
    check: bytes => {
      setHashed(frontier, bytes)
      check()
    },
    chunks: true,
    frontier,
    // The network is slower than one thread.
    isAlone: false,
  })
  return { digest: found.digest, ...found.chunks && { chunks: found.chunks.columns } }
}

function stampsOf({ stamped }: Extract<TreeJob, { task: 'seal' }>): Stamped | undefined {
  return stamped === undefined ? undefined : { listing: new Listing(stamped.columns), stamps: new FileStamps(stamped.stamps) }
}

function copyTo(root: string, to: string, check: (bytes?: number) => void): void {
  const listing = walkTree(root, check)
  if (lstatSync(to, { throwIfNoEntry: false }) !== undefined) throw new NarvikError('conflict', `Cannot copy to ${to}: found something there, needed nothing`)
  try {
    copyNow(root, to, listing, check)
  } catch (error) {
    removeNow(to, () => undefined)
    throw error
  }
}

async function unpack(root: string, nar: Uint8Array<ArrayBuffer>, check: () => void): Promise<void> {
  const remove = (): Promise<void> => {
    removeNow(root, () => undefined)
    return Promise.resolve()
  }
  const source = async function* (): AsyncGenerator<Uint8Array> {
    check()
    yield await Promise.resolve(nar)
  }
  await restoreNar(source(), root, { remove })
  // It is free now, not when this thread's heap is collected: many small NARs make no heap grow.
  nar.buffer.transfer(0)
  try {
    await sealNow(root, undefined, check)
  } catch (error) {
    await remove()
    throw error
  }
}

/** What a job calls all the time: it ends one that was cancelled, and reports its progress now and then. */
function checkOf(job: TreeJob): (bytes?: number) => void {
  let next = performance.now() + PROGRESS_MS
  const holdBack = job.bytesPerSecond === undefined ? undefined : holderBack(job, job.bytesPerSecond)
  return (bytes = 0) => {
    Atomics.add(job.steps, 0, 1)
    holdBack?.(bytes)
    if (Atomics.load(job.cancelled, 0) !== 0) throw new Cancelled()
    if (bytes === 0 || performance.now() < next) return
    next = performance.now() + PROGRESS_MS
    reply({ kind: 'progress', bytes })
  }
}

/** Steps back for every other thread of the machine, and sleeps until the bytes are due. */
function holderBack({ cancelled, steps }: TreeJob, bytesPerSecond: number): (bytes: number) => void {
  stepBack()
  const started = performance.now()
  return bytes => {
    const due = started + bytes * 1000 / bytesPerSecond
    for (let left = due - performance.now(); left > 0 && Atomics.load(cancelled, 0) === 0; left = due - performance.now()) {
      Atomics.wait(cancelled, 0, 0, Math.min(left, PROGRESS_MS))
      Atomics.add(steps, 0, 1)
    }
  }
}

/** The kernel gives a thread that is this nice what is left of the processor, and of the disk where its scheduler knows classes. */
function stepBack(): void {
  const thread = Number(basename(readlinkSync('/proc/thread-self')))
  setPriority(thread, constants.priority.PRIORITY_LOW)
}

function failure(error: unknown): TreeReply {
  if (error instanceof Cancelled) return { kind: 'cancelled' }
  if (error instanceof NarvikError) return { kind: 'failed', code: error.code, message: error.message, hint: error.hint }
  return { kind: 'failed', code: 'internal', message: `Cannot handle the tree: ${messageOf(error)}`, hint: undefined }
}

function buffersOf({ columns, chunks, stamps }: TreeResult): ArrayBuffer[] {
  const all: readonly { readonly buffer: ArrayBuffer }[] = [
    ...columns === undefined ? [] : columnsOf(columns),
    ...chunks === undefined ? [] : [chunks.offsets, chunks.hashes],
    ...stamps === undefined ? [] : [stamps.changeTimes, stamps.inodes, stamps.holes],
  ]
  return all.map(({ buffer }) => buffer)
}

function columnsOf({ kinds, depths, nameLengths, parents, values, starts, text }: ListingColumns): { readonly buffer: ArrayBuffer }[] {
  return [kinds, depths, nameLengths, parents, values, starts, text]
}

function reply(message: TreeReply, transfer: ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, transfer)
}
