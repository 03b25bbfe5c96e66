import { type ChunkRun, ChunkSet, chunksOf } from '../../src/image/chunk-set.ts'
import { Desk, type Outgoing } from '../../src/p2p/chunks/desk.ts'
import { LeastSent } from '../../src/p2p/chunks/least-sent.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { type Action, Scheduler } from '../../src/tasks/swarm/scheduler.ts'
import { seededRandom } from '../../src/tasks/swarm/random.ts'
import type { ChunkSizes } from '../../src/tasks/swarm/pick.ts'

/** A swarm in virtual time: the real scheduler and the real serving policy, behind links that are fluids. */

export interface LinkSpeed {
  /** Bytes per millisecond. */
  readonly up: number
  readonly down: number
}

export interface HostInit {
  readonly name: string
  readonly link: LinkSpeed
  /** Milliseconds after which it starts; 0 where absent. */
  readonly startsAt?: number
  readonly isSeed?: boolean
  /** The hosts that it asks. */
  readonly asks: readonly string[]
  /** From this time on it sends nothing at all. */
  readonly stallsAt?: number
  /** Whether it sends wrong bytes. */
  readonly lies?: boolean
}

export interface SimulationInit {
  readonly chunks: ChunkSizes
  readonly hosts: readonly HostInit[]
  /** Milliseconds that a message is on its way. */
  readonly latencyMs?: number
  readonly seed?: number
  /** Takers that a host serves at once. */
  readonly places?: number
}

/** Bytes of one message of chunks. */
const MESSAGE_BYTES = 256 * 1024
/** Milliseconds between two ticks of a host. */
const TICK_MS = 100
const LIMIT_MS = 3_600_000

export class SimHost {
  readonly name: string
  readonly init: HostInit
  readonly have: ChunkSet
  readonly scheduler: Scheduler
  readonly leastSent: LeastSent
  readonly turns: Turns
  /** Links to those who ask this host. */
  readonly askers: SimLink[] = []
  readonly sources: SimLink[] = []
  doneAt: number | undefined
  /** Bytes of chunks sent, and received that nobody needed. */
  sent = 0
  wasted = 0
  uploads = 0
  downloads = 0
  readonly banned = new Set<string>()

  constructor(init: HostInit, { chunks, places = 16 }: SimulationInit, seed: number) {
    this.init = init
    this.name = init.name
    this.have = init.isSeed === true ? ChunkSet.full(chunks.count) : new ChunkSet(chunks.count)
    this.scheduler = new Scheduler(chunks, { seed })
    this.leastSent = new LeastSent(chunks.count, chunk => chunks.length(chunk))
    this.turns = new Turns({ places, quantumBytes: 16 * 1024 * 1024, claimMs: 2000 })
  }
}

/** The session in which `to` asks `from`. */
interface SimLink {
  readonly from: SimHost
  readonly to: SimHost
  readonly desk: Desk
  /** The message that is being sent. */
  flow: { id: number, run: ChunkRun, left: number } | undefined
  rate: number
  isOpen: boolean
}

interface Event { readonly at: number, readonly order: number, readonly run: () => void }

export class Simulation {
  now = 0
  readonly hosts = new Map<string, SimHost>()
  readonly #init: SimulationInit
  readonly #latency: number
  readonly #events: Event[] = []
  readonly #links: SimLink[] = []
  #order = 0

  constructor(init: SimulationInit) {
    this.#init = init
    this.#latency = init.latencyMs ?? 20
    const random = seededRandom(init.seed ?? 1)
    for (const host of init.hosts) this.hosts.set(host.name, new SimHost(host, init, Math.floor(random() * 2 ** 31)))
    for (const host of this.hosts.values()) {
      if (host.init.isSeed !== true) this.#at(host.init.startsAt ?? 0, () => { this.#start(host) })
    }
  }

  host(name: string): SimHost {
    const host = this.hosts.get(name)
    if (host === undefined) throw new Error(`there is no ${name}`)
    return host
  }

  /** Runs until every host has all; answers when the last one had, in milliseconds. */
  run(): number {
    const waiting = [...this.hosts.values()].filter(({ init }) => init.isSeed !== true)
    while (waiting.some(({ doneAt }) => doneAt === undefined)) {
      if (this.now > LIMIT_MS) throw new Error('the swarm does not end')
      this.#step()
    }
    return Math.max(...waiting.map(({ doneAt = 0 }) => doneAt))
  }

  #start(host: SimHost): void {
    for (const name of host.init.asks) this.#connect(this.host(name), host)
    const tick = (): void => {
      if (host.doneAt !== undefined) return
      this.#decide(host)
      this.#at(this.now + TICK_MS, tick)
    }
    tick()
  }

  #connect(from: SimHost, to: SimHost): void {
    const link: SimLink = {
      from, to, flow: undefined, rate: 0, isOpen: true,
      desk: new Desk({
        turns: from.turns, leastSent: from.leastSent, lengthOf: chunk => this.#init.chunks.length(chunk), now: () => this.now,
        onWork: () => { this.#serve(link) },
      }, { messageBytes: MESSAGE_BYTES }),
    }
    this.#links.push(link)
    from.askers.push(link)
    to.sources.push(link)
    to.scheduler.joined(from.name)
    this.#later(() => {
      if (from.have.size === this.#init.chunks.count) this.#toAsker(link, () => { to.scheduler.hasAll(from.name) })
      else for (const run of from.have.runs()) this.#toAsker(link, () => { to.scheduler.has(from.name, run) })
    })
  }

  /** Sends what the desk has, up to the next message of chunks. */
  #serve(link: SimLink): void {
    const { from, desk } = link
    while (link.flow === undefined && link.isOpen && this.now < (from.init.stallsAt ?? Infinity)) {
      const outgoing = desk.next()
      if (outgoing === undefined) return
      if (outgoing.kind === 'chunks') this.#send(link, outgoing)
      else this.#toAsker(link, () => { this.#told(link, outgoing) })
    }
  }

  #send(link: SimLink, { id, run }: { id: number, run: ChunkRun }): void {
    let bytes = 0
    for (const chunk of chunksOf([run])) bytes += this.#init.chunks.length(chunk)
    link.flow = { id, run, left: bytes }
    link.from.uploads += 1
    link.to.downloads += 1
  }

  #sentWhole(link: SimLink): void {
    const { from, to, flow, desk } = link
    if (flow === undefined) return
    link.flow = undefined
    from.uploads -= 1
    to.downloads -= 1
    let bytes = 0
    for (const chunk of chunksOf([flow.run])) bytes += this.#init.chunks.length(chunk)
    from.sent += bytes
    desk.sent(bytes)
    this.#toAsker(link, () => { this.#receive(link, flow) })
    this.#serve(link)
  }

  #receive({ from, to }: SimLink, { id, run }: { id: number, run: ChunkRun }): void {
    for (const chunk of chunksOf([run])) {
      const length = this.#init.chunks.length(chunk)
      to.scheduler.heard(from.name, length, this.now)
      if (from.init.lies === true) {
        to.wasted += length
        this.#ban(to, from)
        return
      }
      if (!to.scheduler.arrived(from.name, id, chunk)) {
        to.wasted += length
        continue
      }
      to.have.add(chunk)
      for (const asker of to.askers) this.#toAsker(asker, () => { asker.to.scheduler.has(to.name, { first: chunk, count: 1 }) })
    }
    if (to.have.size === this.#init.chunks.count) to.doneAt ??= this.now
    this.#decide(to)
  }

  #ban(host: SimHost, liar: SimHost): void {
    host.banned.add(liar.name)
    host.scheduler.left(liar.name)
    for (const link of this.#links) {
      if (link.from !== liar || link.to !== host) continue
      link.isOpen = false
      if (link.flow !== undefined) {
        link.flow = undefined
        liar.uploads -= 1
        host.downloads -= 1
      }
      link.desk.close()
    }
  }

  #told({ from, to }: SimLink, outgoing: Exclude<Outgoing, { kind: 'chunks' }>): void {
    if (outgoing.kind === 'chose') to.scheduler.chose(from.name, outgoing.id, outgoing.runs)
    else if (outgoing.kind === 'end') to.scheduler.ended(from.name, outgoing.id, outgoing.status)
    else to.scheduler.ready(from.name)
    this.#decide(to)
  }

  #decide(host: SimHost): void {
    for (const action of host.scheduler.decide(this.now)) {
      const link = host.sources.find(({ from, isOpen }) => isOpen && from.name === action.peerId)
      if (link !== undefined) this.#later(() => { act(link.desk, action) })
    }
  }

  #toAsker(link: SimLink, run: () => void): void {
    this.#later(() => { if (link.isOpen) run() })
  }

  #later(run: () => void): void {
    this.#at(this.now + this.#latency, run)
  }

  /** Keeps the events in order, in a binary heap. */
  #at(at: number, run: () => void): void {
    const heap = this.#events
    heap.push({ at, order: this.#order++, run })
    for (let index = heap.length - 1; index > 0;) {
      const parent = (index - 1) >> 1
      if (!isBefore(heap[index], heap[parent])) break
      swap(heap, index, parent)
      index = parent
    }
  }

  #pop(): Event | undefined {
    const heap = this.#events
    const [first] = heap
    const last = heap.pop()
    if (heap.length === 0 || last === undefined) return first
    heap[0] = last
    for (let index = 0; ;) {
      const child = isBefore(heap[2 * index + 2], heap[2 * index + 1]) ? 2 * index + 2 : 2 * index + 1
      if (!isBefore(heap[child], heap[index])) return first
      swap(heap, index, child)
      index = child
    }
  }

  /** Goes to the next event or the next end of a message, whichever comes first. */
  #step(): void {
    this.#share()
    let next = this.#events[0]?.at ?? Infinity
    for (const { flow, rate } of this.#links) if (flow !== undefined && rate > 0) next = Math.min(next, this.now + flow.left / rate)
    if (next === Infinity) throw new Error('nothing more happens in the swarm')
    const elapsed = next - this.now
    this.now = next
    const ended: SimLink[] = []
    for (const link of this.#links) {
      if (link.flow === undefined) continue
      link.flow.left -= elapsed * link.rate
      if (link.flow.left < 1e-6) ended.push(link)
    }
    for (const link of ended) this.#sentWhole(link)
    while ((this.#events[0]?.at ?? Infinity) <= this.now) this.#pop()?.run()
  }

  /** Shares the links among the messages under way, as fair as can be: the narrowest link is shared out first. */
  #share(): void {
    const ports = new Map<string, { left: number, flows: number }>()
    for (const { name, init: { link: { up, down } }, uploads, downloads } of this.hosts.values()) {
      ports.set(`${name} up`, { left: up, flows: uploads })
      ports.set(`${name} down`, { left: down, flows: downloads })
    }
    const flows = new Set<{ link: SimLink, up: { left: number, flows: number }, down: { left: number, flows: number } }>()
    for (const link of this.#links) {
      link.rate = 0
      const [up, down] = [ports.get(`${link.from.name} up`), ports.get(`${link.to.name} down`)]
      const isStalled = this.now >= (link.from.init.stallsAt ?? Infinity)
      if (link.flow === undefined || up === undefined || down === undefined) continue
      if (isStalled) {
        up.flows -= 1
        down.flows -= 1
      } else {
        flows.add({ link, up, down })
      }
    }
    while (flows.size > 0) {
      let share = Infinity
      for (const { up, down } of flows) share = Math.min(share, up.left / up.flows, down.left / down.flows)
      for (const flow of flows) {
        const { link, up, down } = flow
        if (Math.min(up.left / up.flows, down.left / down.flows) > share * (1 + 1e-9)) continue
        link.rate = share
        flows.delete(flow)
        for (const port of [up, down]) {
          port.left -= share
          port.flows -= 1
        }
      }
    }
  }
}

function act(desk: Desk, action: Action): void {
  if (action.kind === 'want') desk.want(action.id, action.runs, action.choice)
  else desk.cancel(action.id, action.runs)
}

function isBefore(one: Event | undefined, other: Event | undefined): boolean {
  if (one === undefined) return false
  return other === undefined || one.at < other.at || (one.at === other.at && one.order < other.order)
}

function swap(heap: Event[], a: number, b: number): void {
  const [one, other] = [heap[a], heap[b]]
  if (one === undefined || other === undefined) return
  heap[a] = other
  heap[b] = one
}

/** Chunks of a made-up image, of lengths as FastCDC gives them. */
export function someChunks(bytes: number, seed = 1): ChunkSizes & { readonly bytes: number } {
  const random = seededRandom(seed)
  const lengths: number[] = []
  for (let left = bytes; left > 0;) {
    const length = Math.min(left, 16 * 1024 + Math.floor(96 * 1024 * random()))
    lengths.push(length)
    left -= length
  }
  return { bytes, count: lengths.length, length: chunk => lengths[chunk] ?? 0 }
}
