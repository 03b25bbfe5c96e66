import type { Stream } from '@libp2p/interface'
import { NarvikError } from '../errors.ts'
import { STREAM_STALL_MS } from '../limits.ts'

export interface WatchdogInit {
  /** Gives the stream up; its reason is what `reason` then is. */
  readonly signal?: AbortSignal | undefined
  /** Milliseconds that one awaited step may take. */
  readonly stallMs?: number | undefined
}

/**
 * Ends a stream that makes no progress: libp2p has no idle timeout, and a peer that is switched off is silent for ever.
 * Only the time in which this host waits for the peer counts. Must be stopped.
 */
export class Watchdog {
  readonly #stream: Stream
  readonly #stallMs: number
  readonly #outer: AbortSignal | undefined
  readonly #controller = new AbortController()
  readonly #onAbort = (): void => { this.giveUp(this.#outer?.reason) }
  readonly #onClose = (): void => { this.#controller.abort(new Error('the stream was closed')) }

  constructor(stream: Stream, { signal, stallMs = STREAM_STALL_MS }: WatchdogInit) {
    this.#stream = stream
    this.#stallMs = stallMs
    this.#outer = signal
    stream.addEventListener('close', this.#onClose)
    signal?.addEventListener('abort', this.#onAbort, { once: true })
    if (signal?.aborted === true) this.#onAbort()
  }

  /** Aborts when the stream ends in any way, so that what feeds it ends too. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Why this host gave the stream up, or undefined where it did not. */
  reason: unknown = undefined

  /** Waits for `step`; where it takes too long the stream is aborted, which makes the step fail. `what` completes `found no …`. */
  async wait<T>(step: Promise<T>, what: string, timeoutMs = this.#stallMs): Promise<T> {
    const timer = setTimeout(() => {
      this.giveUp(new NarvikError('peer-failed', `Cannot go on with the peer: found no ${what} for ${timeoutMs} ms, needed some`))
    }, timeoutMs)
    timer.unref()
    try {
      const result = await step
      // Some steps of an aborted stream end as if they had been done.
      if (this.reason !== undefined) throw this.reason as Error
      return result
    } finally {
      clearTimeout(timer)
    }
  }

  stop(): void {
    this.#outer?.removeEventListener('abort', this.#onAbort)
    this.#stream.removeEventListener('close', this.#onClose)
  }

  /** Ends the stream, for a reason that each step that waits is told. */
  giveUp(reason: unknown): void {
    if (this.reason !== undefined) return
    this.reason = reason
    this.#stream.abort(reason instanceof Error ? reason : new Error(String(reason)))
    this.#controller.abort(reason)
  }
}
