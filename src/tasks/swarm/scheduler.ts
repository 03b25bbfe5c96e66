import { type ChunkRun, ChunkSet, chunksOf, toRuns } from '../../image/chunk-set.ts'
import { lateChunks } from './end-game.ts'
import { SwarmPeer, type Want } from './peer.ts'
import { type ChunkSizes, type Field, pick } from './pick.ts'
import { seededRandom } from './random.ts'
import { TUNING, type Tuning } from './tuning.ts'

/** What is to be sent to a peer. */
export type Action =
  /** Ask for all of `runs`, or for `choice` bytes of them that the peer chooses. */
  | { readonly kind: 'want', readonly peerId: string, readonly id: number, readonly runs: readonly ChunkRun[], readonly choice: number | undefined }
  /** Ask no more for `runs` of the want `id`. */
  | { readonly kind: 'cancel', readonly peerId: string, readonly id: number, readonly runs: readonly ChunkRun[] }

/** How a peer ended a want. */
export type WantEnd = 'done' | 'busy' | 'not-found'

export interface SchedulerInit {
  /** What ties are broken by: another one on each host, so that hosts that start together ask for different chunks. */
  readonly seed: number
  /** What is here already. */
  readonly proven?: ChunkSet
  /** What is copied from other chunks of the image when these come: not to be asked for. */
  readonly copies?: ChunkSet
  readonly tuning?: Partial<Tuning>
}

/**
 * Decides which peer is asked for which chunks: the rarest first, of each peer as much as it sends in a moment. It does nothing by itself: it is told what
 * happens and when (in milliseconds of any one clock), and `decide` says what to send. An event costs the same however many chunks there are.
 */
export class Scheduler {
  readonly #chunks: ChunkSizes
  readonly #tuning: Tuning
  readonly #missing: ChunkSet
  /** Missing chunks that nobody was asked for. */
  readonly #open: ChunkSet
  /** Peers that have each chunk, without those that have all. */
  readonly #holders: Uint16Array
  #wholes = 0
  /** Peers that were asked for each chunk. */
  readonly #claims: Uint8Array
  readonly #peers = new Map<string, SwarmPeer>()
  readonly #field: Field
  #cancels: Action[] = []
  /** Peers that stall. */
  #stalled = 0

  constructor(chunks: ChunkSizes, { seed, proven, copies, tuning }: SchedulerInit) {
    this.#chunks = chunks
    this.#tuning = { ...TUNING, ...tuning }
    this.#missing = ChunkSet.full(chunks.count)
    for (const set of [proven, copies]) for (const chunk of set?.from(0) ?? []) this.#missing.delete(chunk)
    this.#open = new ChunkSet(chunks.count)
    for (const chunk of this.#missing.from(0)) this.#open.add(chunk)
    this.#holders = new Uint16Array(chunks.count)
    this.#claims = new Uint8Array(chunks.count)
    this.#field = { chunks, open: this.#open, random: seededRandom(seed), holders: chunk => (this.#holders[chunk] ?? 0) + this.#wholes, wholes: () => this.#wholes }
  }

  get isDone(): boolean {
    return this.#missing.size === 0
  }

  isMissing(chunk: number): boolean {
    return this.#missing.has(chunk)
  }

  /**
   * Bytes that a peer owes, its speed, and when it last sent something or was first asked after it had sent all; whether it is `spent`: what is missing it has
   * announced and then not sent.
   */
  peer(peerId: string): { readonly inFlight: number, readonly bytesPerSecond: number, readonly heardAt: number, readonly busy: boolean, readonly spent: boolean } {
    const { inFlight, rate, heardAt, busy, lacks, isExhausted } = this.#peer(peerId)
    return { inFlight, bytesPerSecond: rate.bytesPerSecond ?? 0, heardAt, busy, spent: lacks && inFlight <= 0 && isExhausted }
  }

  /** A peer without a chunk so far. */
  joined(peerId: string): void {
    this.#peers.set(peerId, new SwarmPeer(peerId, this.#chunks.count))
  }

  /** What it owes goes back. */
  left(peerId: string): void {
    const peer = this.#peer(peerId)
    for (const want of peer.wants.values()) this.#giveUp(want)
    this.#peers.delete(peerId)
    if (peer.stalled) this.#stalled -= 1
    if (peer.have === undefined) this.#wholes -= 1
    else for (const chunk of peer.have.from(0)) this.#holders[chunk] = (this.#holders[chunk] ?? 1) - 1
  }

  has(peerId: string, { first, count }: ChunkRun): void {
    const peer = this.#peer(peerId)
    for (let chunk = first; chunk < first + count; chunk++) {
      if (peer.have?.add(chunk) !== true) continue
      this.#holders[chunk] = (this.#holders[chunk] ?? 0) + 1
      if (this.#open.has(chunk)) peer.isExhausted = false
    }
    if (peer.have?.size === this.#chunks.count) this.hasAll(peerId)
  }

  hasAll(peerId: string): void {
    const peer = this.#peer(peerId)
    if (peer.have === undefined) return
    for (const chunk of peer.have.from(0)) this.#holders[chunk] = (this.#holders[chunk] ?? 1) - 1
    peer.have = undefined
    peer.isExhausted = false
    this.#wholes += 1
  }

  /** The peer says which of the chunks named in a want it will send. */
  chose(peerId: string, id: number, runs: readonly ChunkRun[]): void {
    const peer = this.#peer(peerId)
    const want = peer.wants.get(id)
    if (want?.choice === undefined) return
    const chosen = new Set(chunksOf(runs))
    for (const chunk of want.pending) if (!chosen.has(chunk)) this.#drop(want, chunk)
    peer.inFlight += this.#bytes(want.pending) - want.choice
    want.choice = undefined
    for (const chunk of want.pending) if (!this.#missing.has(chunk)) this.#cancel(peer, want, [chunk])
  }

  /** Bytes of chunks came from a peer. */
  heard(peerId: string, bytes: number, now: number): void {
    const peer = this.#peer(peerId)
    peer.rate.add(bytes, now)
    peer.heardAt = now
    if (!peer.stalled) return
    peer.stalled = false
    this.#stalled -= 1
    for (const want of peer.wants.values()) this.#reclaim(want)
  }

  /** A chunk came whole and right; answers whether it was still missing. */
  arrived(peerId: string, id: number, chunk: number): boolean {
    const peer = this.#peer(peerId)
    peer.proven = true
    const want = peer.wants.get(id)
    if (want?.pending.has(chunk) === true) {
      this.#drop(want, chunk)
      peer.inFlight -= this.#chunks.length(chunk)
      this.#rest(peer)
    }
    return this.found(chunk)
  }

  /** A chunk is here, wherever it came from; answers whether it was missing. Whoever was asked for it is told. */
  found(chunk: number): boolean {
    if (!this.#missing.delete(chunk)) return false
    this.#open.delete(chunk)
    if ((this.#claims[chunk] ?? 0) === 0 && this.#stalled === 0) return true
    for (const peer of this.#peers.values()) {
      for (const want of peer.wants.values()) if (want.choice === undefined && want.pending.has(chunk)) this.#cancel(peer, want, [chunk])
    }
    return true
  }

  /** The peer sends nothing more for a want. What it does not have it isn't asked for again. */
  ended(peerId: string, id: number, end: WantEnd): void {
    const peer = this.#peer(peerId)
    const want = peer.wants.get(id)
    if (end === 'busy') peer.busy = true
    if (want === undefined) return
    if (end === 'not-found') this.#lacks(peer, want.pending)
    peer.inFlight -= want.choice ?? this.#bytes(want.pending)
    this.#giveUp(want)
    peer.wants.delete(id)
    this.#rest(peer)
  }

  /** A busy peer has room again. */
  ready(peerId: string): void {
    this.#peer(peerId).busy = false
  }

  /** What to send now. To be called after events, and from time to time while nothing happens. */
  decide(now: number): Action[] {
    const actions: Action[] = []
    for (const peer of this.#peers.values()) this.#checkStall(peer, now)
    for (const peer of this.#peers.values()) {
      if (peer.isExhausted && this.#open.size > 0) continue
      for (let room = peer.room(this.#tuning); room > 0; room = peer.room(this.#tuning)) {
        const action = this.#ask(peer, room, now) ?? this.#askForLate(peer, now)
        if (action === undefined) break
        actions.push(action)
      }
    }
    const cancels = this.#cancels
    this.#cancels = []
    return [...cancels, ...actions]
  }

  #ask(peer: SwarmPeer, room: number, now: number): Action | undefined {
    if (this.#open.size === 0) return undefined
    const picked = pick(this.#field, peer, room, this.#tuning)
    if (picked !== undefined) return this.#want(peer, picked.runs, picked.choice, now)
    peer.isExhausted = true
    return undefined
  }

  /** When every missing chunk was asked for, what comes late is moved to who sends it sooner, or asked for twice. */
  #askForLate(peer: SwarmPeer, now: number): Action | undefined {
    if (this.#open.size > 0 || now < peer.endGameAt || !peer.proven) return undefined
    peer.endGameAt = now + this.#tuning.endGameMs
    const late = lateChunks(peer, this.#peers.values(), { chunks: this.#chunks, isClaimedOnce: chunk => this.#claims[chunk] === 1 })
    if (late.length === 0) return undefined
    const action = this.#want(peer, toRuns(late.map(({ chunk }) => chunk)), undefined, now)
    for (const { chunk, owner, want, isMoved } of late) if (isMoved) this.#cancel(owner, want, [chunk])
    return action
  }

  #want(peer: SwarmPeer, runs: readonly ChunkRun[], choice: number | undefined, now: number): Action {
    const id = peer.nextWantId()
    const want: Want = { id, pending: new Set(chunksOf(runs)), choice, claimed: false }
    peer.wants.set(id, want)
    if (peer.inFlight === 0) {
      peer.heardAt = now
      peer.rate.start(now)
    }
    peer.inFlight += choice ?? this.#bytes(want.pending)
    this.#reclaim(want)
    return { kind: 'want', peerId: peer.id, id, runs, choice }
  }

  #checkStall(peer: SwarmPeer, now: number): void {
    if (peer.inFlight === 0 || peer.stalled || now - peer.heardAt < this.#tuning.stallMs) return
    peer.stalled = true
    this.#stalled += 1
    // It may still send them; until then others are asked as well.
    for (const want of peer.wants.values()) this.#unclaim(want)
  }

  #cancel(peer: SwarmPeer, want: Want, chunks: readonly number[]): void {
    for (const chunk of chunks) {
      this.#drop(want, chunk)
      peer.inFlight -= this.#chunks.length(chunk)
    }
    this.#cancels.push({ kind: 'cancel', peerId: peer.id, id: want.id, runs: toRuns(chunks) })
    this.#rest(peer)
  }

  /** Of a peer that owes nothing, nothing is waited for. One that has stalled begins anew, with one chunk. */
  #rest(peer: SwarmPeer): void {
    if (peer.inFlight > 0) return
    peer.rate.stop()
    if (!peer.stalled) return
    peer.stalled = false
    peer.proven = false
    this.#stalled -= 1
  }

  #lacks(peer: SwarmPeer, chunks: Iterable<number>): void {
    peer.lacks = true
    if (peer.have === undefined) {
      peer.have = ChunkSet.full(this.#chunks.count)
      this.#wholes -= 1
      for (let chunk = 0; chunk < this.#chunks.count; chunk++) this.#holders[chunk] = (this.#holders[chunk] ?? 0) + 1
    }
    for (const chunk of chunks) if (peer.have.delete(chunk)) this.#holders[chunk] = (this.#holders[chunk] ?? 1) - 1
  }

  #giveUp(want: Want): void {
    this.#unclaim(want)
    want.pending.clear()
  }

  #drop(want: Want, chunk: number): void {
    want.pending.delete(chunk)
    if (want.claimed) this.#release(chunk)
  }

  #unclaim(want: Want): void {
    if (!want.claimed) return
    want.claimed = false
    for (const chunk of want.pending) this.#release(chunk)
  }

  #reclaim(want: Want): void {
    if (want.claimed) return
    want.claimed = true
    for (const chunk of want.pending) {
      this.#claims[chunk] = (this.#claims[chunk] ?? 0) + 1
      this.#open.delete(chunk)
    }
  }

  #release(chunk: number): void {
    const claims = (this.#claims[chunk] ?? 1) - 1
    this.#claims[chunk] = claims
    if (claims > 0 || !this.#missing.has(chunk)) return
    this.#open.add(chunk)
    for (const peer of this.#peers.values()) if (peer.isExhausted && peer.has(chunk)) peer.isExhausted = false
  }

  #bytes(chunks: Iterable<number>): number {
    let bytes = 0
    for (const chunk of chunks) bytes += this.#chunks.length(chunk)
    return bytes
  }

  #peer(peerId: string): SwarmPeer {
    const peer = this.#peers.get(peerId)
    if (peer === undefined) throw new Error(`bug: ${peerId} has not joined`)
    return peer
  }
}
