import { ChunkSet } from '../../src/image/chunk-set.ts'
import { MAX_SERVED_MANIFESTS, MAX_SWARM_SESSIONS, SWARM_CLAIM_MS, SWARM_PLACES, SWARM_QUANTUM_BYTES } from '../../src/limits.ts'
import { Swarm } from '../../src/p2p/chunks/swarms.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { Asker } from './asker.ts'
import { Flow, type Port } from './network.ts'
import { SimSession } from './session.ts'
import type { World } from './world.ts'

/** Bytes per millisecond. */
export interface LinkSpeed {
  readonly up: number
  readonly down: number
}

export interface HostInit {
  readonly name: string
  readonly link: LinkSpeed
  readonly isSeed?: boolean
  /** Milliseconds after which it wants the image; 0 where absent. */
  readonly startsAt?: number
  /** Milliseconds from it to the middle of the network. */
  readonly wayMs?: number
  /** When it is switched off, and on again with what it had proven; in order. */
  readonly absences?: readonly { readonly from: number, readonly until: number }[]
  /** From this time on it sends nothing at all, and is still there. */
  readonly stallsAt?: number
  /** Whether it sends wrong bytes. */
  readonly lies?: boolean
}

/** How a host answers who opens a session. */
export type Answer = { readonly status: 'ok' } | { readonly status: 'not-found' | 'busy', readonly peers: readonly string[] } | { readonly status: 'gone' }

/** One host, with what it has of the image; its `asker` is the half of it that wants the rest. */
export class SimHost {
  readonly init: HostInit
  readonly name: string
  readonly number: number
  readonly up: Port
  readonly down: Port
  readonly have: ChunkSet
  /** What it has proven since the run began, in order. */
  readonly log: number[] = []
  readonly served = new Set<SimSession>()
  readonly connected = new Set<SimHost>()
  turns: Turns
  asker: Asker
  isHere = true
  /** When it first had the whole image. */
  doneAt: number | undefined
  /** Bytes of chunks that it sent; of manifests; of chunks that came and nobody needed. */
  sent = 0
  manifests = 0
  wasted = 0
  readonly banned = new Set<string>()
  readonly #world: World
  readonly #places: number
  #swarm: Swarm | undefined
  #introductions = 0
  #isAnnounced = false

  constructor(world: World, init: HostInit, { number, places = SWARM_PLACES }: { number: number, places?: number | undefined }) {
    const { network, chunks, nature: { goodput } } = world
    this.#world = world
    this.#places = places
    this.init = init
    this.name = init.name
    this.number = number
    this.up = network.port(init.link.up * goodput)
    this.down = network.port(init.link.down * goodput)
    this.have = init.isSeed === true ? ChunkSet.full(chunks.count) : new ChunkSet(chunks.count)
    this.turns = this.#newTurns()
    this.asker = new Asker(world, this)
  }

  get isStalled(): boolean {
    return this.#world.agenda.now >= (this.init.stallsAt ?? Infinity)
  }

  /** Whether it has to have the image in the end. */
  get isWanting(): boolean {
    const { isSeed = false, absences = [] } = this.init
    return !isSeed && absences.at(-1)?.until !== Infinity
  }

  start(): void {
    const { agenda, directory } = this.#world
    if (this.init.isSeed === true) directory.add(this.name)
    else agenda.at(this.init.startsAt ?? 0, () => { if (this.isHere) this.asker.start() })
    for (const { from, until } of this.init.absences ?? []) {
      agenda.at(from, () => { this.#leave() })
      if (until < Infinity) agenda.at(until, () => { this.#comeBack() })
    }
    if (this.init.stallsAt !== undefined) agenda.at(this.init.stallsAt, () => { for (const session of this.served) session.halt() })
    const expire = (): void => {
      this.turns.expire(agenda.now)
      agenda.after(SWARM_CLAIM_MS, expire)
    }
    expire()
  }

  /** Milliseconds for something small to get to another host. */
  delayTo(other: SimHost): number {
    const { queueMs } = this.#world.nature
    return (this.init.wayMs ?? 0) + (other.init.wayMs ?? 0) + (this.up.isFull ? queueMs : 0) + (other.down.isFull ? queueMs : 0)
  }

  /** Chunks came that were missing. */
  prove(chunks: readonly number[]): void {
    for (const chunk of chunks) {
      this.have.add(chunk)
      this.log.push(chunk)
    }
    for (const session of this.served) session.tellNews()
    if (this.#isAnnounced) return
    this.#isAnnounced = true
    const { agenda, directory, nature: { announceMs } } = this.#world
    agenda.after(announceMs, () => { directory.add(this.name) })
  }

  /** A host opens a session. */
  greet(asker: SimHost): Answer {
    if (!this.isHere) return { status: 'gone' }
    if (!this.#holds()) return { status: 'not-found', peers: [] }
    const swarm = this.#swarm ??= new Swarm({ chunks: this.#world.chunks }, () => { this.#swarm = undefined }, this.#world.random)
    if (swarm.size >= MAX_SWARM_SESSIONS) return { status: 'busy', peers: swarm.others(asker.name) }
    const session = new SimSession(this.#world, { holder: this, asker, swarm })
    this.served.add(session)
    this.asker.meet(asker.name)
    session.begin()
    return { status: 'ok' }
  }

  /** Sends a host the manifest, and tells when it is there; false where it can't. */
  introduce(asker: SimHost, onArrived: () => void): boolean {
    if (!this.isHere || this.isStalled || !this.#holds() || this.#introductions >= MAX_SERVED_MANIFESTS) return false
    const { agenda, network, chunks, nature: { manifestBytes } } = this.#world
    const bytes = manifestBytes === 0 ? 0 : manifestBytes + 32 * chunks.count
    const flow = new Flow(this.up, asker.down, () => {
      network.stop(flow)
      this.#introductions -= 1
      agenda.after(this.delayTo(asker), onArrived)
    })
    this.#introductions += 1
    this.manifests += bytes
    flow.left = bytes
    network.start(flow)
    return true
  }

  #holds(): boolean {
    return this.have.size > 0 || this.asker.isRunning
  }

  #leave(): void {
    this.isHere = false
    this.connected.clear()
    for (const session of [...this.served]) session.end()
    this.asker.stop()
  }

  #comeBack(): void {
    this.isHere = true
    this.turns = this.#newTurns()
    this.asker = new Asker(this.#world, this)
    if (this.have.size < this.#world.chunks.count) this.asker.start()
  }

  #newTurns(): Turns {
    return new Turns({ places: this.#places, quantumBytes: SWARM_QUANTUM_BYTES, claimMs: SWARM_CLAIM_MS })
  }
}
