import type { Progress } from '../control/api.ts'
import { MAX_TRACED_PEERS } from '../limits.ts'
import type { Span, Spans } from './spans.ts'

interface Sender {
  readonly span: Span
  /** What had come from it, in this try or an earlier one, when it was first seen. */
  readonly before: number
  bytes: number
  at: Date
}

/** The phases of a piece of work as spans below its own, one after another, and within one who sends. */
export class Phases {
  readonly #spans: Spans
  readonly #whole: Span
  readonly #senders = new Map<string, Sender>()
  /** What each peer had sent when the last phase ended: the sums go on. */
  readonly #earlier = new Map<string, number>()
  #phase: { readonly name: string, readonly span: Span } | undefined

  constructor(spans: Spans, whole: Span) {
    this.#spans = spans
    this.#whole = whole
  }

  take(progress: Pick<Progress, 'phase' | 'peers'>): void {
    // Reports are few: what the last peers have sent is told by the one that says that the next phase has begun.
    this.#hear(progress)
    this.begin(progress.phase)
    this.#hear(progress)
  }

  begin(name: string): void {
    if (this.#phase?.name === name) return
    this.end()
    this.#phase = { name, span: this.#spans.start(name, { parent: this.#whole }) }
  }

  /** Ends what goes on. */
  end(code?: string): void {
    for (const [peerId, { span, before, bytes, at }] of this.#senders) {
      span.add({ bytes: bytes - before })
      span.end({ at })
      this.#earlier.set(peerId, bytes)
    }
    this.#senders.clear()
    if (this.#phase === undefined) return
    this.#phase.span.end(code === undefined ? {} : { code })
    this.#phase = undefined
  }

  #hear({ peers }: Pick<Progress, 'peers'>): void {
    if (this.#phase?.name === 'receiving') for (const peer of peers) this.#hearOf(peer, this.#phase.span)
  }

  /** A peer sends from when its first bytes have come until its last ones have. */
  #hearOf({ peerId, bytes }: { readonly peerId: string, readonly bytes: number }, parent: Span): void {
    const known = this.#senders.get(peerId)
    if (known !== undefined) {
      if (bytes > known.bytes) known.at = new Date()
      known.bytes = bytes
      return
    }
    const before = this.#earlier.get(peerId) ?? 0
    if (bytes <= before || this.#senders.size >= MAX_TRACED_PEERS) return
    this.#senders.set(peerId, { span: this.#spans.start('receiving from peer', { parent, facts: { peer_id: peerId } }), before, bytes, at: new Date() })
  }
}
