import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'

export type Phase = 'queued' | 'paused' | 'finding' | 'receiving' | 'hashing' | 'copying' | 'verifying' | 'publishing' | 'installing'

/** How far a piece of work has come. */
export interface Progress {
  /** SRI of the image; null until it is known. */
  readonly narHash: string | null
  readonly phase: Phase
  /** Bytes of the NAR that are done in this phase. */
  readonly bytes: number
  readonly totalBytes: number | null
  readonly bytesPerSecond: number
  /** Who sends, with what was taken from each and, of a swarm, its speed at the moment. */
  readonly peers: readonly { readonly peerId: string, readonly bytes: number, readonly bytesPerSecond?: number }[]
}

export type ProgressListener = (progress: Progress) => void

const IDLE: Progress = { narHash: null, phase: 'finding', bytes: 0, totalBytes: null, bytesPerSecond: 0, peers: [] }
/** Milliseconds over which the shown rate is averaged. */
const RATE_WINDOW_MS = 3000
/** Milliseconds between two reports to those who watch, within one phase. */
const REPORT_INTERVAL_MS = 100

/** The kind of work that nobody waits for; it gives way to any other on the same image. */
const BACKGROUND = 'scrub'

/** One piece of long work on one image, with those who watch it. */
export class Job<out Result> {
  readonly kind: string
  readonly narHash: NarHash
  readonly startedAt = new Date()
  readonly result: Promise<Result>
  readonly #abort = new AbortController()
  readonly #listeners = new Set<ProgressListener>()
  #progress: Progress
  #reportedAt = 0
  #mark = { at: performance.now(), bytes: 0 }

  constructor(kind: string, narHash: NarHash, work: (job: Job<unknown>) => Promise<Result>) {
    this.kind = kind
    this.narHash = narHash
    this.#progress = { ...IDLE, narHash: narHash.toSri() }
    this.result = Promise.resolve().then(() => work(this))
    // Whoever waits handles the failure; a job that nobody waits for reports through its own work.
    this.result.catch(() => undefined)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get progress(): Progress {
    return this.#progress
  }

  abort(reason: NarvikError): void {
    this.#abort.abort(reason)
  }

  report(change: Partial<Omit<Progress, 'bytesPerSecond' | 'narHash'>>): void {
    const now = performance.now()
    const next = { ...this.#progress, ...change }
    const isNewPhase = next.phase !== this.#progress.phase
    if (isNewPhase) this.#mark = { at: now, bytes: next.bytes }
    this.#progress = { ...next, bytesPerSecond: isNewPhase ? 0 : this.#rate(now, next.bytes) }
    if (!isNewPhase && now - this.#reportedAt < REPORT_INTERVAL_MS) return
    this.#reportedAt = now
    for (const listener of this.#listeners) listener(this.#progress)
  }

  /** Calls `listener` with each report from now on, and with the last one at once; returns how to stop that. */
  watch(listener: ProgressListener): () => void {
    this.#listeners.add(listener)
    listener(this.#progress)
    return () => { this.#listeners.delete(listener) }
  }

  #rate(now: number, bytes: number): number {
    const span = now - this.#mark.at
    const rate = span < 50 ? this.#progress.bytesPerSecond : Math.max(0, Math.round((bytes - this.#mark.bytes) * 1000 / span))
    if (span > RATE_WINDOW_MS) this.#mark = { at: now, bytes }
    return rate
  }
}

/** What became of a job: its turn has come, or it is over. */
export type JobChange = { readonly event: 'started' | 'done' } | { readonly event: 'failed', readonly error: unknown }
type JobListener = (job: Job<unknown>, change: JobChange) => void

/** The work under way: one job per image at a time, the others in the order in which they were asked for. */
export class Jobs {
  readonly #jobs = new Set<Job<unknown>>()
  /** The job of each image that was asked for last. */
  readonly #last = new Map<string, Job<unknown>>()
  readonly #listeners = new Set<JobListener>()
  #stopping: NarvikError | undefined

  /** Calls `listener` when a job starts and when it ends; returns how to stop that. */
  onChange(listener: JobListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** The job on the image that is under way, or the last one that waits for it. */
  find(narHash: NarHash): Job<unknown> | undefined {
    return this.#last.get(narHash.toNix32())
  }

  /** In the order in which they were asked for. */
  list(): Job<unknown>[] {
    return [...this.#jobs]
  }

  /**
   * Has `work` done on the image as soon as what was asked for before is over.
   * @throws NarvikError `interrupted` where the daemon is stopping.
   */
  run<Result>(kind: string, narHash: NarHash, work: (job: Job<unknown>) => Promise<Result>): Job<Result> {
    if (this.#stopping !== undefined) throw this.#stopping
    const key = narHash.toNix32()
    const before = this.#last.get(key)
    if (before?.kind === BACKGROUND) before.abort(new NarvikError('interrupted', `Cannot go on with ${narHash.toSri()}: something else is to be done with it`))
    const job = new Job<Result>(kind, narHash, async self => {
      try {
        await before?.result.catch(() => undefined)
        self.signal.throwIfAborted()
        this.#tell(self, { event: 'started' })
        const result = await work(self)
        this.#tell(self, { event: 'done' })
        return result
      } catch (error) {
        this.#tell(self, { event: 'failed', error })
        throw error
      } finally {
        this.#jobs.delete(self)
        if (this.#last.get(key) === self) this.#last.delete(key)
      }
    })
    this.#jobs.add(job)
    this.#last.set(key, job)
    return job
  }

  #tell(job: Job<unknown>, change: JobChange): void {
    for (const listener of this.#listeners) listener(job, change)
  }

  /**
   * As `run`, for work on many images at once: it begins when its turn has come for each of them. Answers as the work does, with what
   * it gives for each image, in their order.
   */
  async runTogether<Result>(kind: string, narHashes: readonly NarHash[], work: () => Promise<readonly Result[]>): Promise<readonly Result[]> {
    const results = Promise.withResolvers<readonly Result[]>()
    results.promise.catch(() => undefined)
    const turns = narHashes.map((narHash, index) => {
      const turn = Promise.withResolvers<undefined>()
      const job = this.run(kind, narHash, async () => {
        turn.resolve(undefined)
        return (await results.promise)[index]
      })
      return Promise.race([turn.promise, job.result])
    })
    try {
      await Promise.all(turns)
      const answer = await work()
      results.resolve(answer)
      return answer
    } catch (error) {
      results.reject(error)
      throw error
    }
  }

  /** Ends the jobs of these kinds on the image, also those that wait for their turn. */
  abort(narHash: NarHash, kinds: readonly string[], reason: NarvikError): void {
    for (const job of this.#jobs) if (job.narHash.equals(narHash) && kinds.includes(job.kind)) job.abort(reason)
  }

  /** Interrupts all work and waits until it has left things in order. */
  async stop(): Promise<void> {
    this.#stopping = new NarvikError('interrupted', 'Cannot go on: the daemon is stopping', {
      hint: 'What was received is kept, and goes on after the next start',
    })
    const jobs = this.list()
    for (const job of jobs) job.abort(this.#stopping)
    await Promise.allSettled(jobs.map(job => job.result))
  }
}
