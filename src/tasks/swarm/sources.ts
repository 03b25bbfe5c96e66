import { setTimeout as delay } from 'node:timers/promises'
import { isNarvikError, messageOf, NarvikError } from '../../errors.ts'
import type { ChunkRun } from '../../image/chunk-set.ts'
import { MAX_SWARM_SOURCES } from '../../limits.ts'
import { type ChunkSession, openSession, type SessionMessage, type SwarmQuestion } from '../../p2p/chunks/client.ts'
import type { TaskContext } from '../context.ts'
import type { Providers } from '../providers.ts'
import type { Scheduler } from './scheduler.ts'
import { Spares } from './spares.ts'

/** What a swarm fetch does with what its peers send. */
export interface Sink {
  /** Chunks that were missing came from a peer; they are on their way to the disk when it resolves. */
  take(peerId: string, run: ChunkRun, bytes: Uint8Array): Promise<void>
  /** Bytes came that nobody needed. */
  wasted(peerId: string, bytes: number): void
  lied(peerId: string, chunk: number): void
  failed(peerId: string, reason: string): void
}

export interface SourcesParts {
  readonly context: Pick<TaskContext, 'node' | 'settings' | 'logger'>
  readonly question: SwarmQuestion
  readonly scheduler: Scheduler
  readonly providers: Providers
  readonly sink: Sink
  readonly signal: AbortSignal
}

/** Milliseconds from one look at the clock to the next. */
const TICK_MS = 100
/** Milliseconds without a word from any peer after which others are looked for as if there were none. */
const SERVED_MS = 2000
/** Milliseconds before a peer that has failed is tried again: first, and at most. */
const REST_MS = { first: 2000, last: 30_000 }

/** The peers that one image is received from: finds them, asks them for what the scheduler says, and leaves those that fail. */
export class Sources {
  readonly #parts: SourcesParts
  readonly #ending = new AbortController()
  readonly #signal: AbortSignal
  readonly #sessions = new Map<string, ChunkSession>()
  /** Peers to which a session is open or being opened. */
  readonly #taken = new Set<string>()
  readonly #spares = new Spares()
  /** Sources that make room, and for whom. */
  readonly #successors = new Map<string, string>()
  readonly #resting = new Map<string, { readonly pause: number, readonly until: number }>()
  /** Peers that were met while they rest. */
  readonly #metAtRest = new Set<string>()
  /** Peers whose bytes are being taken: not they but this host is waited for. */
  readonly #taking = new Set<string>()
  readonly #running = new Set<Promise<void>>()
  readonly #done = Promise.withResolvers<undefined>()
  /** When a peer last said something. */
  #heardAt = performance.now()
  /** Why this host itself can't go on. */
  #fault: unknown
  /** Wakes whoever waits for a session to end. */
  #released = Promise.withResolvers<undefined>()

  constructor(parts: SourcesParts) {
    this.#parts = parts
    this.#signal = AbortSignal.any([parts.signal, this.#ending.signal])
    this.#done.promise.catch(() => undefined)
  }

  /**
   * Receives until nothing is missing.
   * @throws NarvikError `no-provider` where no peer moves the image on; what the sink throws; the signal's reason.
   */
  async run(): Promise<void> {
    const onAbort = (): void => { this.#done.reject(this.#parts.signal.reason as Error) }
    this.#parts.signal.addEventListener('abort', onAbort, { once: true })
    const timer = setInterval(() => {
      this.update()
      this.#leaveLate()
      this.#exchange()
      this.#meetAgain()
    }, TICK_MS)
    try {
      this.#parts.signal.throwIfAborted()
      this.#recruit().catch((error: unknown) => { this.#done.reject(error) })
      this.update()
      await this.#done.promise
    } finally {
      clearInterval(timer)
      this.#parts.signal.removeEventListener('abort', onAbort)
      this.#ending.abort(new NarvikError('interrupted', 'Cannot go on with the swarm: it is over'))
      await Promise.all(this.#running)
    }
    if (this.#fault !== undefined) throw this.#fault as Error
  }

  /** A peer may have chunks; nothing happens where it is asked already. One that has failed lately is asked when it has rested. */
  meet(peerId: string): void {
    const { node } = this.#parts.context
    if (this.#signal.aborted || peerId === node.peerId || this.#taken.has(peerId) || !this.#parts.providers.isWelcome(peerId)) return
    if (this.#rests(peerId)) this.#metAtRest.add(peerId)
    else if (this.#isFull()) this.#spares.add(peerId)
    else this.#ask(peerId)
  }

  /** What each peer sends at the moment, in bytes per second. */
  rates(): Map<string, number> {
    return new Map(Array.from(this.#sessions.keys(), peerId => [peerId, Math.round(this.#parts.scheduler.peer(peerId).bytesPerSecond)]))
  }

  /** Tells the peers what the scheduler decides; to be called after whatever changes what is missing. */
  update(): void {
    if (this.#signal.aborted) return
    const { scheduler } = this.#parts
    if (scheduler.isDone) {
      this.#done.resolve(undefined)
      return
    }
    for (const action of scheduler.decide(performance.now())) {
      const session = this.#sessions.get(action.peerId)
      if (action.kind === 'want') session?.want(action.id, action.runs, action.choice)
      else session?.cancel(action.id, action.runs)
    }
  }

  /** Leaves peers that owe something and have sent nothing for too long. */
  #leaveLate(): void {
    const { scheduler, context: { settings } } = this.#parts
    const now = performance.now()
    for (const [peerId, session] of this.#sessions) {
      const { inFlight, heardAt, spent } = scheduler.peer(peerId)
      // In another session it may say again what it has.
      if (spent) session.giveUp(new NarvikError('peer-failed', 'Cannot go on with the peer: found chunks missing that it had announced, needed them'))
      if (inFlight > 0 && !this.#taking.has(peerId) && now - heardAt > settings.stallMs) session.giveUp(new NarvikError('peer-failed', `Cannot go on with the peer: found no chunk for ${settings.stallMs} ms, needed some`))
    }
  }

  /** Asks each provider that is found, as many at once as is useful. */
  async #recruit(): Promise<void> {
    while (!this.#signal.aborted) {
      if (this.#isFull()) {
        await this.#released.promise
        continue
      }
      const found = await this.#next()
      if (found !== undefined && !this.#taken.has(found)) this.#ask(found)
    }
  }

  /** The next provider; undefined where none is found and those that are asked may still have something. */
  async #next(): Promise<string | undefined> {
    try {
      return (await this.#parts.providers.next({ except: peerId => this.#taken.has(peerId) || this.#rests(peerId), isServed: () => this.#isServed() })).peerId
    } catch (error) {
      if (!isNarvikError(error, 'no-provider') || !this.#isHopeful()) throw error
      await delay(TICK_MS, undefined, { signal: this.#signal })
      return undefined
    }
  }

  /** Whether a peer is being reached, has said something lately, or has this host wait for its turn. */
  #isHopeful(): boolean {
    const { scheduler, context: { settings } } = this.#parts
    if (this.#taken.size > this.#sessions.size || performance.now() - this.#heardAt < settings.stallMs) return this.#taken.size > 0
    return [...this.#sessions.keys()].some(peerId => scheduler.peer(peerId).busy)
  }

  /** Whether peers send; they name each other, so that nobody else needs to. */
  #isServed(): boolean {
    return this.#sessions.size > 0 && performance.now() - this.#heardAt < SERVED_MS
  }

  /** Whether a peer has failed lately; one that does so again and again is tried less and less. */
  #rests(peerId: string): boolean {
    return performance.now() < (this.#resting.get(peerId)?.until ?? 0)
  }

  #meetAgain(): void {
    for (const peerId of this.#metAtRest) if (!this.#rests(peerId) && this.#metAtRest.delete(peerId)) this.meet(peerId)
  }

  #letRest(peerId: string): void {
    const pause = Math.min(2 * (this.#resting.get(peerId)?.pause ?? REST_MS.first / 2), REST_MS.last)
    this.#resting.set(peerId, { pause, until: performance.now() + pause })
  }

  #isFull(): boolean {
    return this.#taken.size >= MAX_SWARM_SOURCES
  }

  /** Whoever has nothing to give makes room for another one. */
  #exchange(): void {
    const { scheduler, providers } = this.#parts
    if (this.#signal.aborted || !this.#isFull()) return
    const sources = Array.from(this.#sessions.keys(), peerId => ({ peerId, ...scheduler.peer(peerId) }))
    const exchange = this.#spares.exchange(performance.now(), sources, peerId => !this.#taken.has(peerId) && !this.#rests(peerId) && providers.isWelcome(peerId))
    const session = exchange && this.#sessions.get(exchange.leave)
    if (exchange === undefined || session === undefined) return
    this.#successors.set(exchange.leave, exchange.ask)
    session.giveUp(new NarvikError('interrupted', 'Cannot go on with the peer: found nothing that it has and this host needs, needed some'))
  }

  #ask(peerId: string): void {
    this.#taken.add(peerId)
    const asking = this.#receiveFrom(peerId).catch((error: unknown) => { this.#onFailure(peerId, error) }).finally(() => {
      this.#taken.delete(peerId)
      this.#running.delete(asking)
      const successor = this.#successors.get(peerId)
      this.#successors.delete(peerId)
      if (successor !== undefined) this.meet(successor)
      this.#released.resolve(undefined)
      this.#released = Promise.withResolvers<undefined>()
    })
    this.#running.add(asking)
  }

  async #receiveFrom(peerId: string): Promise<void> {
    const { context: { node, settings }, question, scheduler, providers } = this.#parts
    const answer = await openSession(node, peerId, question, {
      signal: this.#signal, stallMs: settings.stallMs, onBytes: bytes => { scheduler.heard(peerId, bytes, performance.now()) },
    })
    if (answer.status !== 'ok') {
      for (const other of answer.peers) this.meet(other)
      this.#letRest(peerId)
      providers.failed({ peerId }, `it answers ${answer.status}`)
      return
    }
    const { session } = answer
    scheduler.joined(peerId)
    this.#sessions.set(peerId, session)
    this.#heardAt = performance.now()
    this.#spares.joined(peerId, this.#heardAt)
    try {
      for await (const message of session.messages()) {
        await this.#hear(peerId, message)
        this.update()
      }
    } finally {
      this.#sessions.delete(peerId)
      this.#spares.left(peerId)
      scheduler.left(peerId)
      this.update()
    }
  }

  async #hear(peerId: string, message: SessionMessage): Promise<void> {
    const { scheduler, sink } = this.#parts
    this.#heardAt = performance.now()
    switch (message.kind) {
      case 'have':
        for (const run of message.runs) scheduler.has(peerId, run)
        return
      case 'chose':
        scheduler.chose(peerId, message.id, message.runs)
        return
      case 'end':
        scheduler.ended(peerId, message.id, message.status)
        return
      case 'ready':
        scheduler.ready(peerId)
        return
      case 'peers':
        for (const other of message.peerIds) this.meet(other)
        return
      case 'lie':
        sink.lied(peerId, message.chunk)
        return
      case 'chunks':
        await this.#take(peerId, message)
    }
  }

  async #take(peerId: string, { id, run, bytes }: Extract<SessionMessage, { kind: 'chunks' }>): Promise<void> {
    const { scheduler, sink, question: { chunks }, providers } = this.#parts
    const start = chunks.offset(run.first)
    const needed = neededParts(run, chunk => scheduler.arrived(peerId, id, chunk))
    let useful = 0
    this.#taking.add(peerId)
    for (const part of needed) {
      const [from, to] = [chunks.offset(part.first) - start, chunks.offset(part.first + part.count) - start]
      useful += to - from
      await this.#orStop(sink.take(peerId, part, bytes.subarray(from, to)))
    }
    this.#taking.delete(peerId)
    scheduler.heard(peerId, 0, performance.now())
    if (useful > 0) providers.progressed()
    if (useful < bytes.length) sink.wasted(peerId, bytes.length - useful)
  }

  /** Where this host itself can't go on, no peer can help. */
  async #orStop(work: Promise<void>): Promise<void> {
    try {
      await work
    } catch (error) {
      this.#fault ??= error
      this.#done.reject(error)
      throw error
    }
  }

  #onFailure(peerId: string, error: unknown): void {
    if (this.#signal.aborted) return
    const { context: { logger }, providers, sink } = this.#parts
    const reason = messageOf(error)
    this.#letRest(peerId)
    if (this.#successors.has(peerId)) return
    logger.debug('a source is left', { peerId, reason })
    providers.failed({ peerId }, reason)
    if (isNarvikError(error, 'peer-failed')) sink.failed(peerId, reason)
  }
}

/** The parts of a run whose chunks are needed. */
function neededParts(run: ChunkRun, isNeeded: (chunk: number) => boolean): ChunkRun[] {
  const parts: { first: number, count: number }[] = []
  for (let chunk = run.first; chunk < run.first + run.count; chunk++) {
    if (!isNeeded(chunk)) continue
    const last = parts.at(-1)
    if (last !== undefined && last.first + last.count === chunk) last.count += 1
    else parts.push({ first: chunk, count: 1 })
  }
  return parts
}
