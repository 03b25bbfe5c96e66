import { type ChunkRun, chunksOf, toRuns } from '../../image/chunk-set.ts'
import type { LeastSent, LengthOf } from './least-sent.ts'
import type { Turns } from './turns.ts'

/** How a want ends. */
export type EndStatus = 'done' | 'busy' | 'not-found'

/** What is to be sent next. */
export type Outgoing =
  | { readonly kind: 'chose', readonly id: number, readonly runs: readonly ChunkRun[] }
  | { readonly kind: 'chunks', readonly id: number, readonly run: ChunkRun }
  | { readonly kind: 'end', readonly id: number, readonly status: EndStatus }
  | { readonly kind: 'ready' }

export interface DeskComponents {
  readonly turns: Turns
  readonly leastSent: LeastSent
  readonly lengthOf: LengthOf
  /** Called when there is something to send. */
  readonly onWork: () => void
  /** Milliseconds of any one clock. */
  readonly now: () => number
}

/** The serving policy for one asker of one image: what it wants, what it gets next. It sends nothing by itself. */
export class Desk {
  readonly #parts: DeskComponents
  readonly #messageBytes: number
  /** What is still to be sent of each want, in the order in which they came. */
  readonly #wants = new Map<number, Set<number>>()
  readonly #replies: Outgoing[] = []
  readonly #taker: { readonly onTurn: () => void }

  /** `messageBytes`: what is sent at once at most; one chunk is always sent whole. */
  constructor(parts: DeskComponents, { messageBytes }: { messageBytes: number }) {
    this.#parts = parts
    this.#messageBytes = messageBytes
    this.#taker = { onTurn: () => { this.#reply({ kind: 'ready' }) } }
  }

  /** Wants that are not ended, and answers that are not sent. */
  get backlog(): number {
    return this.#wants.size + this.#replies.length
  }

  isOpen(id: number): boolean {
    return this.#wants.has(id)
  }

  /** The asker wants the runs, or of them `choice` bytes that the desk chooses. */
  want(id: number, runs: readonly ChunkRun[], choice: number | undefined): void {
    if (!this.#parts.turns.take(this.#taker)) {
      this.#reply({ kind: 'end', id, status: 'busy' })
      return
    }
    const given = this.#parts.leastSent.give(runs, choice)
    this.#wants.set(id, new Set(chunksOf(given)))
    if (choice !== undefined) this.#replies.push({ kind: 'chose', id, runs: given })
    this.#parts.onWork()
  }

  /** The asker needs the runs no more; what is being sent already is sent. */
  cancel(id: number, runs: readonly ChunkRun[]): void {
    const pending = this.#wants.get(id)
    if (pending === undefined) return
    this.#parts.leastSent.takeBack([...chunksOf(runs)].filter(chunk => pending.delete(chunk)))
    this.#parts.onWork()
  }

  /** A chunk that was to be sent is not here: the asker learns it by the want's end. */
  lost(id: number): void {
    this.#end(id, 'not-found')
  }

  /** What to send next; undefined where there is nothing at the moment. */
  next(): Outgoing | undefined {
    const reply = this.#replies.shift()
    if (reply !== undefined) return reply
    const [first] = this.#wants
    if (first === undefined) {
      this.#parts.turns.rests(this.#taker, this.#parts.now())
      return undefined
    }
    const [id, pending] = first
    if (pending.size === 0) {
      this.#wants.delete(id)
      return { kind: 'end', id, status: 'done' }
    }
    return { kind: 'chunks', id, run: this.#takeRun(pending) }
  }

  /** To be called after `bytes` were sent: an asker that has had its share makes room for another one. */
  sent(bytes: number): void {
    if (!this.#parts.turns.sent(this.#taker, bytes, this.#parts.now())) return
    for (const id of [...this.#wants.keys()]) this.#end(id, 'busy')
  }

  /** The asker is gone. */
  close(): void {
    for (const pending of this.#wants.values()) this.#parts.leastSent.takeBack(pending)
    this.#wants.clear()
    this.#parts.turns.leave(this.#taker, this.#parts.now())
  }

  #end(id: number, status: EndStatus): void {
    const pending = this.#wants.get(id)
    if (pending === undefined) return
    this.#wants.delete(id)
    this.#parts.leastSent.takeBack(pending)
    this.#reply({ kind: 'end', id, status })
  }

  #takeRun(pending: Set<number>): ChunkRun {
    const taken: number[] = []
    let bytes = 0
    for (const chunk of pending) {
      bytes += this.#parts.lengthOf(chunk)
      const last = taken.at(-1)
      if (last !== undefined && (chunk !== last + 1 || bytes > this.#messageBytes)) break
      taken.push(chunk)
    }
    for (const chunk of taken) pending.delete(chunk)
    const [run = { first: 0, count: 0 }] = toRuns(taken)
    return run
  }

  #reply(reply: Outgoing): void {
    this.#replies.push(reply)
    this.#parts.onWork()
  }
}
