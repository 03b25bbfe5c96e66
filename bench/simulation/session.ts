import { runBytes } from '../../src/image/chunk-check.ts'
import { type ChunkRun, toRuns } from '../../src/image/chunk-set.ts'
import { MAX_SWARM_CHUNK_MESSAGE_BYTES, MAX_SWARM_PEERS_NAMED, STREAM_STALL_MS } from '../../src/limits.ts'
import { Desk, type Outgoing } from '../../src/p2p/chunks/desk.ts'
import { newsPauseMs } from '../../src/p2p/chunks/news.ts'
import type { Member, Swarm } from '../../src/p2p/chunks/swarms.ts'
import type { Action } from '../../src/tasks/swarm/scheduler.ts'
import type { SimHost } from './host.ts'
import { Flow } from './network.ts'
import type { World } from './world.ts'

interface ChunkMessage {
  readonly id: number
  readonly run: ChunkRun
  readonly bytes: number
}

/** Bytes of a peer's id in a list of them. */
const PEER_ID_BYTES = 55
/** Bytes of the head of a message, and about those of a run in it. */
const HEAD_BYTES = 8
const RUN_BYTES = 3

/** The session in which `asker` is given chunks by `holder`: the real serving policy, and the stream between them. */
export class SimSession {
  readonly holder: SimHost
  readonly asker: SimHost
  readonly #world: World
  readonly #swarm: Swarm
  readonly #desk: Desk
  readonly #member: Member
  readonly #flow: Flow
  readonly #startedAt: number
  /** What of the holder's log the asker was told. */
  #told: number
  #isPausing = false
  readonly #named = new Set<string>()
  #toName: string[] = []
  #message: ChunkMessage | undefined
  /** Bytes of the message that the asker has heard. */
  #heard = 0
  /** Whether the holder, and the asker, are in it. */
  #isServed = true
  isAsked = true
  #isFrozen = false
  /** What arrives when the network is whole again. */
  readonly #held: (() => void)[] = []
  readonly #arrivesAt = { asker: 0, holder: 0 }

  constructor(world: World, { holder, asker, swarm }: { holder: SimHost, asker: SimHost, swarm: Swarm }) {
    const { agenda, chunks } = world
    this.#world = world
    this.holder = holder
    this.asker = asker
    this.#swarm = swarm
    this.#startedAt = agenda.now
    this.#flow = new Flow(holder.up, asker.down, () => { this.#sentWhole() })
    this.#desk = new Desk({
      turns: holder.turns, leastSent: swarm.leastSent, lengthOf: chunk => chunks.length(chunk), now: () => agenda.now, onWork: () => { this.#serve() },
    }, { messageBytes: MAX_SWARM_CHUNK_MESSAGE_BYTES })
    this.#member = { peerId: asker.name, onPeer: other => { this.#name([other]) } }
    this.#told = holder.log.length
  }

  /** The holder has let the asker in. */
  begin(): void {
    const { holder, asker } = this
    this.#toAsker(HEAD_BYTES, () => { asker.asker.opened(this) })
    this.#name(this.#swarm.others(asker.name))
    this.#swarm.join(this.#member)
    if (holder.have.size > 0) this.#tell([...holder.have.runs()])
  }

  /** The holder has proven more. */
  tellNews(): void {
    if (this.#isPausing || !this.#isServed || !this.#speaks()) return
    const { log } = this.holder
    if (this.#told === log.length) return
    const news = log.slice(this.#told).sort((a, b) => a - b)
    this.#told = log.length
    this.#tell(toRuns(news))
  }

  act(action: Action): void {
    this.#toHolder(HEAD_BYTES + RUN_BYTES * action.runs.length, () => {
      if (action.kind === 'want') this.#desk.want(action.id, action.runs, action.choice)
      else this.#desk.cancel(action.id, action.runs)
    })
  }

  /** Bytes that have come since this was last asked; those of a message that is whole are in the message. */
  takeHeard(): number {
    if (this.#message === undefined) return 0
    const arrived = Math.floor(this.#message.bytes - Math.max(this.#flow.left, 0))
    const heard = arrived - this.#heard
    this.#heard = arrived
    return heard
  }

  /** The asker goes. */
  leave(): void {
    if (!this.isAsked) return
    this.isAsked = false
    this.#toHolder(0, () => { this.end() })
  }

  /** The holder goes. */
  end(): void {
    if (!this.#isServed) return
    this.#isServed = false
    this.#world.network.stop(this.#flow)
    if (this.#message !== undefined) {
      const partial = this.#message.bytes - Math.max(this.#flow.left, 0)
      this.holder.sent += partial
      this.asker.wasted += partial
      this.#message = undefined
    }
    this.#swarm.leave(this.#member)
    this.#desk.close()
    this.holder.served.delete(this)
    this.#toAsker(0, () => { this.asker.asker.ended(this) })
  }

  /** Nothing goes through until it thaws. The holder does not wait for ever for room to send. */
  freeze(): void {
    if (this.#isFrozen) return
    this.#isFrozen = true
    this.#world.network.stop(this.#flow)
    if (this.#message === undefined) return
    const message = this.#message
    this.#world.agenda.after(STREAM_STALL_MS, () => { if (this.#isFrozen && this.#message === message) this.end() })
  }

  thaw(): void {
    if (!this.#isFrozen || this.#world.isApart(this.holder, this.asker)) return
    this.#isFrozen = false
    for (const run of this.#held.splice(0)) run()
    if (this.#message !== undefined && this.#isServed) this.#world.network.start(this.#flow)
    this.#serve()
    this.tellNews()
  }

  /** The holder's process does not run any more, but is there. */
  halt(): void {
    this.#world.network.stop(this.#flow)
  }

  #tell(runs: readonly ChunkRun[]): void {
    this.#isPausing = true
    const { agenda } = this.#world
    agenda.after(newsPauseMs(agenda.now - this.#startedAt), () => {
      this.#isPausing = false
      this.tellNews()
    })
    this.#toAsker(HEAD_BYTES + RUN_BYTES * runs.length, () => { this.asker.asker.told(this, runs) })
  }

  #name(peerIds: readonly string[]): void {
    const before = this.#toName.length
    for (const peerId of peerIds) {
      if (this.#named.has(peerId) || this.#named.size >= MAX_SWARM_PEERS_NAMED) continue
      this.#named.add(peerId)
      this.#toName.push(peerId)
    }
    if (before > 0 || this.#toName.length === 0) return
    this.#world.agenda.after(0, () => {
      const named = this.#toName
      this.#toName = []
      this.#toAsker(HEAD_BYTES + PEER_ID_BYTES * named.length, () => { this.asker.asker.named(named) })
    })
  }

  /** Sends what the desk has, up to the next message of chunks. */
  #serve(): void {
    while (this.#message === undefined && this.#isServed && this.#speaks()) {
      const outgoing = this.#desk.next()
      if (outgoing === undefined) return
      if (outgoing.kind === 'chunks') this.#send(outgoing)
      else this.#toAsker(HEAD_BYTES, () => { this.asker.asker.answered(this, outgoing) })
    }
  }

  #speaks(): boolean {
    return !this.#isFrozen && !this.holder.isStalled
  }

  #send({ id, run }: Extract<Outgoing, { kind: 'chunks' }>): void {
    const bytes = runBytes(this.#world.chunks, run)
    this.#message = { id, run, bytes }
    this.#heard = 0
    this.#flow.left += bytes
    this.#world.network.start(this.#flow)
  }

  #sentWhole(): void {
    const message = this.#message
    if (message === undefined) return
    const unheard = message.bytes - this.#heard
    this.#message = undefined
    this.holder.sent += message.bytes
    this.#world.tally.chunks += 1
    this.#arrive('asker', () => { this.asker.asker.received(this, message, unheard) })
    this.#desk.sent(message.bytes)
    this.#serve()
    if (this.#isIdle()) {
      this.#world.network.stop(this.#flow)
      this.#flow.left = 0
    }
  }

  #isIdle(): boolean {
    return this.#message === undefined
  }

  #toAsker(bytes: number, run: () => void): void {
    this.#count(this.holder, this.asker, bytes)
    this.#arrive('asker', run)
  }

  #toHolder(bytes: number, run: () => void): void {
    this.#count(this.asker, this.holder, bytes)
    this.#arrive('holder', () => { if (this.#isServed) run() })
  }

  #count(from: SimHost, to: SimHost, bytes: number): void {
    const all = bytes + this.#world.nature.messageBytes
    from.up.small += all
    to.down.small += all
    this.#world.tally.small += 1
  }

  /** What is sent arrives in order. */
  #arrive(at: 'asker' | 'holder', run: () => void): void {
    const [from, to] = at === 'asker' ? [this.holder, this.asker] : [this.asker, this.holder]
    this.#arrivesAt[at] = Math.max(this.#arrivesAt[at], this.#world.agenda.now + from.delayTo(to))
    this.#world.agenda.at(this.#arrivesAt[at], () => {
      if (this.#isFrozen) this.#held.push(run)
      else run()
    })
  }
}
