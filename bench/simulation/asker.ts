import { type ChunkRun, chunksOf } from '../../src/image/chunk-set.ts'
import { DIAL_TIMEOUT_MS, MAX_SWARM_SOURCES, STREAM_STALL_MS } from '../../src/limits.ts'
import type { Outgoing } from '../../src/p2p/chunks/desk.ts'
import { Scheduler } from '../../src/tasks/swarm/scheduler.ts'
import { Spares } from '../../src/tasks/swarm/spares.ts'
import type { SimHost } from './host.ts'
import { Providers } from './providers.ts'
import type { SimSession } from './session.ts'
import type { World } from './world.ts'

/** As src/tasks/swarm/sources.ts has them. */
const TICK_MS = 100
const SERVED_MS = 2000
const REST_MS = { first: 2000, last: 30_000 }

/** The half of a host that wants the image: the real scheduler, and the way in which sources are found and left. */
export class Asker {
  isRunning = false
  readonly #world: World
  readonly #host: SimHost
  readonly #providers: Providers
  #scheduler: Scheduler | undefined
  readonly #sessions = new Map<string, SimSession>()
  /** Peers to which a session is open or being opened. */
  readonly #taken = new Set<string>()
  readonly #resting = new Map<string, { readonly pause: number, readonly until: number }>()
  /** Peers that were met while they rest. */
  readonly #metAtRest = new Set<string>()
  readonly #spares: Spares
  #isFull = false
  #heardAt = 0

  constructor(world: World, host: SimHost) {
    this.#world = world
    this.#host = host
    this.#spares = new Spares(world.random)
    this.#providers = new Providers(world, { isWelcome: peerId => peerId !== host.name && !host.banned.has(peerId), isOver: () => !this.isRunning })
  }

  start(): void {
    this.isRunning = true
    // One that was here before has the manifest.
    if (this.#host.have.size > 0) this.#begin()
    else this.#introduce()
  }

  /** The host is switched off, or done. */
  stop(): void {
    this.isRunning = false
    for (const session of this.#sessions.values()) session.leave()
    this.#sessions.clear()
    this.#scheduler = undefined
  }

  /** A peer may have chunks. */
  meet(peerId: string): void {
    if (this.#scheduler === undefined || peerId === this.#host.name || this.#taken.has(peerId) || this.#host.banned.has(peerId)) return
    if (this.#rests(peerId)) this.#metAtRest.add(peerId)
    else if (this.#taken.size >= MAX_SWARM_SOURCES) this.#spares.add(peerId)
    else this.#ask(peerId)
  }

  named(peerIds: readonly string[]): void {
    for (const peerId of peerIds) this.meet(peerId)
  }

  opened(session: SimSession): void {
    const { name } = session.holder
    if (this.#scheduler === undefined || !this.#taken.has(name) || this.#sessions.has(name)) {
      session.leave()
      return
    }
    this.#sessions.set(name, session)
    this.#scheduler.joined(name)
    this.#heardAt = this.#world.agenda.now
    this.#spares.joined(name, this.#heardAt)
  }

  told(session: SimSession, runs: readonly ChunkRun[]): void {
    if (!this.#hears(session)) return
    for (const run of runs) this.#scheduler?.has(session.holder.name, run)
  }

  answered(session: SimSession, outgoing: Exclude<Outgoing, { kind: 'chunks' }>): void {
    if (!this.#hears(session)) return
    const { name } = session.holder
    if (outgoing.kind === 'chose') this.#scheduler?.chose(name, outgoing.id, outgoing.runs)
    else if (outgoing.kind === 'end') this.#scheduler?.ended(name, outgoing.id, outgoing.status)
    else this.#scheduler?.ready(name)
  }

  received(session: SimSession, { id, run, bytes }: { readonly id: number, readonly run: ChunkRun, readonly bytes: number }, unheard: number): void {
    const [host, { holder }, { agenda, chunks }] = [this.#host, session, this.#world]
    if (!this.#hears(session)) {
      host.wasted += bytes
      return
    }
    this.#scheduler?.heard(holder.name, unheard, agenda.now)
    if (holder.init.lies === true) {
      host.wasted += bytes
      host.banned.add(holder.name)
      this.#drop(session)
      return
    }
    const needed: number[] = []
    for (const chunk of chunksOf([run])) {
      if (this.#scheduler?.arrived(holder.name, id, chunk) === true) needed.push(chunk)
      else host.wasted += chunks.length(chunk)
    }
    this.#world.trace(host, holder, run.first)
    if (needed.length > 0) host.prove(needed)
    if (this.#scheduler?.isDone === true) this.#finish()
  }

  /** The holder has ended the session. */
  ended(session: SimSession): void {
    session.isAsked = false
    if (this.#sessions.get(session.holder.name) === session) this.#drop(session)
  }

  /** Sends what the scheduler decides. */
  decide(): void {
    for (const action of this.#scheduler?.decide(this.#world.agenda.now) ?? []) this.#sessions.get(action.peerId)?.act(action)
  }

  #finish(): void {
    const { agenda, nature: { finishMs } } = this.#world
    this.stop()
    agenda.after(finishMs, () => { this.#host.doneAt ??= agenda.now })
  }

  /** Learns from a provider what the image is. */
  #introduce(): void {
    const { agenda, nature } = this.#world
    this.#providers.next({}, peerId => {
      const provider = this.#world.host(peerId)
      const trip = 2 * this.#host.delayTo(provider)
      agenda.after(trip * (nature.connectTrips + nature.openTrips), () => {
        if (!this.isRunning) return
        this.#host.connected.add(provider)
        const begun = !this.#world.isApart(this.#host, provider) && provider.introduce(this.#host, () => { if (this.isRunning) this.#begin() })
        if (!begun) this.#introduce()
      })
    })
  }

  #begin(): void {
    const { chunks, random } = this.#world
    this.#scheduler = new Scheduler(chunks, { seed: Math.floor(random() * 2 ** 31), proven: this.#host.have })
    this.#providers.startOver()
    this.#recruit()
    this.#tick()
  }

  #tick(): void {
    const scheduler = this.#scheduler
    if (scheduler === undefined) return
    const { agenda } = this.#world
    for (const [peerId, session] of this.#sessions) {
      const heard = session.takeHeard()
      if (heard > 0) scheduler.heard(peerId, heard, agenda.now)
      const { inFlight, heardAt } = scheduler.peer(peerId)
      if (inFlight > 0 && agenda.now - heardAt > STREAM_STALL_MS) this.#drop(session)
    }
    this.#exchange(scheduler)
    for (const peerId of this.#metAtRest) if (!this.#rests(peerId) && this.#metAtRest.delete(peerId)) this.meet(peerId)
    this.#world.wake(this.#host)
    agenda.after(TICK_MS, () => { if (this.#scheduler === scheduler) this.#tick() })
  }

  /** Whoever has nothing to give makes room for another one. */
  #exchange(scheduler: Scheduler): void {
    if (this.#taken.size < MAX_SWARM_SOURCES) return
    const sources = Array.from(this.#sessions.keys(), peerId => ({ peerId, ...scheduler.peer(peerId) }))
    const exchange = this.#spares.exchange(this.#world.agenda.now, sources, peerId => !this.#taken.has(peerId) && !this.#rests(peerId) && !this.#host.banned.has(peerId))
    const session = exchange && this.#sessions.get(exchange.leave)
    if (exchange === undefined || session === undefined) return
    this.#drop(session, exchange.ask)
  }

  /** Asks each provider that is found, as many at once as is useful. */
  #recruit(): void {
    const isOver = (): boolean => this.#scheduler === undefined
    if (isOver()) return
    this.#isFull = this.#taken.size >= MAX_SWARM_SOURCES
    if (this.#isFull) return
    this.#providers.next({ except: peerId => this.#taken.has(peerId) || this.#rests(peerId), isServed: () => this.#isServed() }, peerId => {
      if (isOver()) return
      if (!this.#taken.has(peerId) && this.#taken.size < MAX_SWARM_SOURCES) this.#ask(peerId)
      this.#recruit()
    })
  }

  #isServed(): boolean {
    return this.#sessions.size > 0 && this.#world.agenda.now - this.#heardAt < SERVED_MS
  }

  #rests(peerId: string): boolean {
    return this.#world.agenda.now < (this.#resting.get(peerId)?.until ?? 0)
  }

  #ask(peerId: string): void {
    const { agenda, nature, tally } = this.#world
    const [host, holder] = [this.#host, this.#world.host(peerId)]
    this.#taken.add(peerId)
    tally.asked += 1
    const way = host.delayTo(holder)
    const connecting = host.connected.has(holder) ? 0 : 2 * way * nature.connectTrips
    agenda.after(connecting + 2 * way * (nature.openTrips - 0.5), () => {
      if (!this.isRunning) return
      if (this.#world.isApart(host, holder)) {
        agenda.after(DIAL_TIMEOUT_MS, () => { this.#leave(peerId) })
        return
      }
      host.connected.add(holder)
      holder.connected.add(host)
      const answer = holder.greet(host)
      if (answer.status !== 'ok') agenda.after(way, () => { this.#onRefusal(peerId, answer.status === 'gone' ? [] : answer.peers) })
    })
  }

  #onRefusal(peerId: string, others: readonly string[]): void {
    this.#world.tally.refused += 1
    this.named(others)
    this.#leave(peerId)
  }

  /** The peer is left for now. */
  #leave(peerId: string, successor?: string): void {
    const { agenda } = this.#world
    const pause = Math.min(2 * (this.#resting.get(peerId)?.pause ?? REST_MS.first / 2), REST_MS.last)
    this.#resting.set(peerId, { pause, until: agenda.now + pause })
    this.#taken.delete(peerId)
    if (successor !== undefined) this.meet(successor)
    if (this.#isFull) this.#recruit()
  }

  #drop(session: SimSession, successor?: string): void {
    const { name } = session.holder
    session.leave()
    if (this.#sessions.get(name) !== session) return
    this.#sessions.delete(name)
    this.#scheduler?.left(name)
    this.#spares.left(name)
    this.#leave(name, successor)
    this.#world.wake(this.#host)
  }

  /** Whether the session is still one of those that are read. */
  #hears(session: SimSession): boolean {
    if (this.#sessions.get(session.holder.name) !== session) return false
    this.#heardAt = this.#world.agenda.now
    this.#world.wake(this.#host)
    return true
  }
}
