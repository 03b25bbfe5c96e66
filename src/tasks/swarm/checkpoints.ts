import { messageOf } from '../../errors.ts'
import type { ChunkRun } from '../../image/chunk-set.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import type { TreeWriter } from '../../nar/tree-writer.ts'
import type { Arrivals } from '../../store/arrivals.ts'
import type { TaskContext } from '../context.ts'

/** Bytes, and milliseconds, from one point that a power cut leaves whole to the next. */
const CHECKPOINT_BYTES = 64 * 1024 * 1024
const CHECKPOINT_MS = 10_000

export interface CheckpointParts {
  readonly context: Pick<TaskContext, 'content' | 'logger'>
  readonly narHash: NarHash
  readonly writer: TreeWriter
  readonly arrivals: Arrivals
  /** What is to be written down: everything that is in the files now. */
  readonly snapshot: () => { readonly offset: number }
}

/**
 * Keeps what is proven: each run is noted as it comes, which a kill doesn't undo; now and then the data is made durable, and then the
 * progress that claims it.
 */
export class Checkpoints {
  readonly #parts: CheckpointParts
  #bytes = 0
  #at = performance.now()
  #saving: Promise<void> | undefined

  constructor(parts: CheckpointParts) {
    this.#parts = parts
  }

  /** A run was written. */
  written(run: ChunkRun, bytes: number): void {
    this.#parts.arrivals.add(run)
    this.#bytes += bytes
    if (this.#saving !== undefined || (this.#bytes < CHECKPOINT_BYTES && performance.now() - this.#at < CHECKPOINT_MS)) return
    this.save().catch((error: unknown) => {
      // The next one, at the latest the last, fails where the fetch sees it.
      this.#parts.context.logger.warn('cannot write the progress', { narHash: this.#parts.narHash.toSri(), reason: messageOf(error) })
    })
  }

  /** Makes all that is written durable, and says so. */
  async save(): Promise<void> {
    await this.#saving?.catch(() => undefined)
    this.#saving = this.#save().finally(() => { this.#saving = undefined })
    await this.#saving
  }

  async #save(): Promise<void> {
    const { context: { content }, narHash, writer, arrivals, snapshot } = this.#parts
    this.#bytes = 0
    this.#at = performance.now()
    const mark = arrivals.mark()
    const progress = { ...snapshot() }
    await writer.sync()
    await content.writeProgress(narHash, progress)
    await arrivals.forget(mark)
  }
}
