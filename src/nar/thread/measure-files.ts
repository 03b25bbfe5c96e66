import { lstatSync, type Stats } from 'node:fs'
import { EXECUTABLE, type Listing, REGULAR } from '../../image/listing.ts'
import { HELPER_PATIENCE_MS } from '../../limits.ts'
import { changedError } from '../directory.ts'
import { areManyFiles } from './batches.ts'
import { startHelper } from './helpers.ts'
import { PlainPaths } from './plain-paths.ts'
import { isExecutable, replaced } from './walk.ts'

/**
 * Puts the sizes of the files, and whether they are executable, into a listing of `walkNames`. Where they are many a second thread looks at some of them.
 * @throws NarvikError `changed-while-reading` where a file is gone or replaced; `unreadable`.
 */
export async function measureFiles(root: string, listing: Listing, check: () => void): Promise<void> {
  const shared = createMeasures(listing.count)
  const measurer = new Measurer(root, listing, shared)
  const help = areManyFiles(listing) ? startHelper({ task: 'measure', root, columns: listing.columns, shared }) : undefined
  try {
    measurer.measureAll(check)
  } finally {
    measurer.stop()
    await help?.end()
  }
  takeOver(listing, shared)
}

/** Memory that two threads share: what was found of each entry, and how far each block of them is. */
export interface SharedMeasures {
  readonly sizes: Float64Array<SharedArrayBuffer>
  readonly executable: Uint8Array<SharedArrayBuffer>
  /** The next block to begin, then the state of each block. */
  readonly control: Int32Array<SharedArrayBuffer>
}

/** Entries that a thread takes at a time. */
const BLOCK_ENTRIES = 256
const NEXT = 0
const STATE = 1
/** The states of a block; that of one which is not done yet is 0. */
const DONE = 1
const FAILED = 2

function createMeasures(entries: number): SharedMeasures {
  return {
    sizes: new Float64Array(new SharedArrayBuffer(8 * entries)),
    executable: new Uint8Array(new SharedArrayBuffer(entries)),
    control: new Int32Array(new SharedArrayBuffer(4 * (STATE + Math.ceil(entries / BLOCK_ENTRIES)))),
  }
}

/** One thread's side of the work: whichever has time takes the next block. */
export class Measurer {
  readonly #paths: PlainPaths
  readonly #listing: Listing
  readonly #shared: SharedMeasures
  readonly #blocks: number

  constructor(root: string, listing: Listing, shared: SharedMeasures) {
    this.#paths = new PlainPaths(root, listing)
    this.#listing = listing
    this.#shared = shared
    this.#blocks = shared.control.length - STATE
  }

  /** Takes blocks until there are none, for the thread that helps. */
  work(): void {
    try {
      for (let block = this.#begin(); block < this.#blocks; block = this.#begin()) {
        this.#settle(block, this.#tryBlock(block))
      }
    } finally {
      this.#paths.close()
    }
  }

  /** Takes blocks until there are none, then does again what the other thread did not end, or could not do: to fail with its reason, or not at all. */
  measureAll(check: () => void): void {
    try {
      for (let block = this.#begin(); block < this.#blocks; block = this.#begin()) {
        this.#measureBlock(block, check)
        this.#settle(block, DONE)
      }
      for (let block = 0; block < this.#blocks; block++) {
        if (this.#awaitBlock(block) !== DONE) this.#measureBlock(block, check)
      }
    } finally {
      this.#paths.close()
    }
  }

  /** Has nobody begin another block. */
  stop(): void {
    Atomics.store(this.#shared.control, NEXT, this.#blocks)
  }

  #begin(): number {
    return Atomics.add(this.#shared.control, NEXT, 1)
  }

  #settle(block: number, state: number): void {
    Atomics.store(this.#shared.control, STATE + block, state)
    Atomics.notify(this.#shared.control, STATE + block)
  }

  /** The other thread has time to end what it has begun: 256 files, which are no work unless its disk hangs or it has died. */
  #awaitBlock(block: number): number {
    if (Atomics.load(this.#shared.control, STATE + block) === 0) Atomics.wait(this.#shared.control, STATE + block, 0, HELPER_PATIENCE_MS)
    return Atomics.load(this.#shared.control, STATE + block)
  }

  #tryBlock(block: number): number {
    try {
      this.#measureBlock(block, () => undefined)
      return DONE
    } catch {
      return FAILED
    }
  }

  #measureBlock(block: number, check: () => void): void {
    const end = Math.min(this.#listing.count, (block + 1) * BLOCK_ENTRIES)
    for (let entry = block * BLOCK_ENTRIES; entry < end; entry++) {
      if (this.#listing.kind(entry) === 'regular') this.#measure(entry)
      check()
    }
  }

  #measure(entry: number): void {
    const stat = this.#look(entry)
    if (!stat.isFile()) throw replaced(this.#paths.show(entry))
    this.#shared.sizes[entry] = stat.size
    this.#shared.executable[entry] = isExecutable(stat) ? 1 : 0
  }

  #look(entry: number): Stats {
    try {
      return lstatSync(this.#paths.path(entry))
    } catch (error) {
      throw changedError(error, `take ${this.#paths.show(entry)}`)
    }
  }
}

function takeOver(listing: Listing, { sizes, executable }: SharedMeasures): void {
  const { kinds, values } = listing.columns
  for (let entry = 0; entry < listing.count; entry++) {
    if (listing.kind(entry) !== 'regular') continue
    values[entry] = sizes[entry] ?? 0
    kinds[entry] = executable[entry] === 1 ? EXECUTABLE : REGULAR
  }
}
