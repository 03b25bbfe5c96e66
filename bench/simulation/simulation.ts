import type { ChunkList } from '../../src/image/chunk-list.ts'
import { seededRandom } from '../../src/tasks/swarm/random.ts'
import { Agenda } from './agenda.ts'
import { Directory } from './directory.ts'
import { type HostInit, SimHost } from './host.ts'
import { ESTIMATED, type Nature } from './nature.ts'
import { Network } from './network.ts'
import type { Tally, World } from './world.ts'

/** For a while nothing goes between two parts of the network. */
export interface Cut {
  readonly from: number
  readonly until: number
  /** Whether a host is in the one part or in the other. */
  readonly isBeyond: (name: string) => boolean
}

export interface SimulationInit {
  readonly chunks: ChunkList
  readonly hosts: readonly HostInit[]
  /** Replays the run. */
  readonly seed?: number
  readonly nature?: Partial<Nature>
  readonly cuts?: readonly Cut[]
  /** Whether two hosts can reach each other at all; all do where it is absent. */
  readonly reaches?: (one: string, other: string) => boolean
  /** Askers that a host serves at once. */
  readonly places?: number
}

/** Milliseconds from a cut to the first time that TCP sends again what was lost; each later time comes twice as late. */
const RESEND_MS = 200
/** Milliseconds of virtual time after which a run is given up. */
const LIMIT_MS = 3_600_000

/** A swarm in virtual time: the scheduler, the desk, the turns and the news of the product, behind links that are fluids. A seed replays a run exactly. */
export class Simulation implements World {
  readonly agenda: Agenda
  readonly network = new Network()
  readonly nature: Nature
  readonly chunks: ChunkList
  readonly directory: Directory
  readonly random: () => number
  readonly tally: Tally = { asked: 0, refused: 0, small: 0, chunks: 0 }
  readonly hosts = new Map<string, SimHost>()
  readonly #reaches: (one: string, other: string) => boolean
  readonly #cuts = new Set<Cut>()
  readonly #awake = new Set<SimHost>()
  #trace: [number, number] = [0x811c9dc5, 0x01000193]

  constructor({ chunks, hosts, seed = 1, nature = {}, cuts = [], reaches = () => true, places }: SimulationInit) {
    this.nature = { ...ESTIMATED, ...nature }
    this.agenda = new Agenda(this.nature.stepMs)
    this.chunks = chunks
    this.random = seededRandom(seed)
    this.directory = new Directory(this.random)
    this.#reaches = reaches
    for (const [number, init] of hosts.entries()) this.hosts.set(init.name, new SimHost(this, init, { number, places }))
    for (const host of this.hosts.values()) host.start()
    for (const cut of cuts) this.#plan(cut)
  }

  host(name: string): SimHost {
    const host = this.hosts.get(name)
    if (host === undefined) throw new Error(`there is no ${name}`)
    return host
  }

  /** The hosts that have to have the image in the end. */
  get wanting(): SimHost[] {
    return [...this.hosts.values()].filter(({ isWanting }) => isWanting)
  }

  /** Two runs in which the same chunks came from the same hosts at the same times have the same. */
  get traceHash(): string {
    return this.#trace.map(part => (part >>> 0).toString(16).padStart(8, '0')).join('')
  }

  /** Runs until every host has all; answers when the last one had, in milliseconds. */
  run(): number {
    const wanting = this.wanting
    while (wanting.some(({ doneAt }) => doneAt === undefined)) {
      if (this.agenda.now > LIMIT_MS) throw new Error(`the swarm does not end: ${wanting.filter(({ doneAt }) => doneAt === undefined).length} hosts still wait`)
      this.#step()
    }
    return Math.max(...wanting.map(({ doneAt = 0 }) => doneAt))
  }

  isApart(one: SimHost, other: SimHost): boolean {
    if (!this.#reaches(one.name, other.name)) return true
    for (const { isBeyond } of this.#cuts) if (isBeyond(one.name) !== isBeyond(other.name)) return true
    return false
  }

  wake(host: SimHost): void {
    this.#awake.add(host)
  }

  trace(host: SimHost, peer: SimHost, what: number): void {
    for (const number of [this.agenda.now, host.number, peer.number, what]) {
      this.#trace[0] = Math.imul(this.#trace[0] ^ number, 0x01000193)
      this.#trace[1] = Math.imul(this.#trace[1] ^ number, 0x85ebca6b) + (this.#trace[1] >>> 13) | 0
    }
  }

  #step(): void {
    this.agenda.advance()
    this.network.advance(this.agenda.now, this.agenda.stepMs)
    const awake = [...this.#awake]
    this.#awake.clear()
    for (const host of awake) host.asker.decide()
  }

  #plan(cut: Cut): void {
    const { from, until } = cut
    this.agenda.at(from, () => {
      this.#cuts.add(cut)
      for (const host of this.hosts.values()) for (const session of host.served) if (this.isApart(session.holder, session.asker)) session.freeze()
    })
    this.agenda.at(until, () => { this.#cuts.delete(cut) })
    let resend = RESEND_MS
    while (from + resend < until) resend = 2 * resend + RESEND_MS
    this.agenda.at(from + resend, () => {
      for (const host of this.hosts.values()) for (const session of [...host.served]) session.thaw()
    })
  }
}
