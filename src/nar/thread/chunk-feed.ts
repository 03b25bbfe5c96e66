import { Worker } from 'node:worker_threads'
import { messageOf, NarvikError } from '../../errors.ts'
import { ChunkList } from '../../image/chunk-list.ts'
import { CHUNK_THREAD_PATIENCE_MS } from '../../limits.ts'
import type { ChunkJob, ChunkReply } from './chunk-thread.ts'
import { createPieces, doesNothing, PieceGiver, type SharedPieces } from './piece-ring.ts'

/** Whether there is a thread for the chunks of a NAR that has nothing to do. */
export function hasIdleChunkThread(): boolean {
  return idle.length > 0
}

/** What gives the bytes of one NAR to the thread that cuts it into chunks. */
export class ChunkFeed {
  readonly pieces: PieceGiver
  readonly #thread: Thread
  readonly #reply: Promise<ChunkReply>
  #isGivenUp = false

  constructor(narSize: number) {
    this.#thread = takeIdle() ?? startThread()
    this.pieces = new PieceGiver(this.#thread.pieces)
    this.#reply = ask(this.#thread, { pieces: this.#thread.pieces, narSize })
    // It is awaited at the end only, which may not come.
    this.#reply.catch(() => undefined)
  }

  /** The chunks, after the last piece. @throws NarvikError `too-large`. */
  async finish(): Promise<ChunkList> {
    this.pieces.end()
    const reply = await this.#answer()
    if (reply.kind === 'done') return new ChunkList(reply.columns)
    throw new NarvikError(reply.overLimit ? 'too-large' : 'internal', `Cannot cut a NAR into chunks: ${reply.message}`)
  }

  /** Resolves when the thread has let go of what it shares with this one, or was given up with it, whether or not `finish` was called. */
  async stop(): Promise<void> {
    this.pieces.end()
    const isAlive = !this.#isGivenUp && !this.pieces.isStuck && await this.#answer().then(() => true, () => false)
    if (isAlive) keep(this.#thread)
    else void this.#thread.worker.terminate()
  }

  async #answer(): Promise<ChunkReply> {
    const { promise, reject } = Promise.withResolvers<never>()
    const timer = setTimeout(() => {
      this.#isGivenUp = true
      reject(doesNothing())
    }, CHUNK_THREAD_PATIENCE_MS)
    try {
      return await Promise.race([this.#reply, promise])
    } finally {
      clearTimeout(timer)
    }
  }
}

/** A thread, and the memory that is shared with it: both are kept, as the first use of memory is slow. */
interface Thread {
  readonly worker: Worker
  readonly pieces: SharedPieces
  timer?: NodeJS.Timeout
}

/** Milliseconds that a thread without work is kept: with its memory it takes some 15 MiB, and starting one takes 50 ms. */
const IDLE_MS = 1000

const idle: Thread[] = []

function keep(thread: Thread): void {
  idle.push(thread)
  thread.timer = setTimeout(() => {
    idle.splice(idle.indexOf(thread), 1)
    void thread.worker.terminate()
  }, IDLE_MS).unref()
}

function takeIdle(): Thread | undefined {
  const thread = idle.pop()
  clearTimeout(thread?.timer)
  return thread
}

function startThread(): Thread {
  const worker = new Worker(new URL('./chunk-thread.ts', import.meta.url), { execArgv: [] })
  const thread: Thread = { worker, pieces: createPieces() }
  worker.on('error', () => undefined).once('exit', () => {
    clearTimeout(thread.timer)
    const at = idle.indexOf(thread)
    if (at >= 0) idle.splice(at, 1)
  })
  return thread
}

function ask({ worker }: Thread, job: ChunkJob): Promise<ChunkReply> {
  return new Promise((resolve, reject) => {
    const done = (): void => { worker.off('message', onMessage).off('error', onError).off('exit', onExit) }
    const onMessage = (reply: ChunkReply): void => {
      done()
      resolve(reply)
    }
    const onError = (cause: unknown): void => {
      done()
      reject(new NarvikError('internal', `Cannot cut a NAR into chunks: found that the thread for it failed (${messageOf(cause)}), needed an answer`, { cause }))
    }
    const onExit = (): void => { onError(new Error('The thread ended')) }
    worker.on('message', onMessage).on('error', onError).on('exit', onExit)
    worker.postMessage(job)
  })
}
