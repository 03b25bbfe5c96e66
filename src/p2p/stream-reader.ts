import type { Stream } from '@libp2p/interface'
import { READ_HIGH_WATER_BYTES } from '../limits.ts'
import { copied } from './freeing.ts'

/** What a queued buffer is counted as besides its bytes: a peer that sends single bytes must not fill the memory with buffers. */
const BUFFER_COST = 256

/**
 * Takes a stream's bytes, header and body alike, with bounded memory: the stream is paused while more than the high-water
 * mark waits here. It must be made in the same turn in which the stream was got, or the end of a short stream is missed;
 * there must be one per stream. (libp2p's own iterator and byteStream have no backpressure, lose ends or hang.)
 */
export class StreamReader {
  readonly #stream: Stream
  readonly #high: number
  readonly #low: number
  readonly #queue: Uint8Array[] = []
  /** Bytes that wait here, and what their buffers cost. */
  #queued = 0
  #received = 0
  #taken = 0
  #ended = false
  #error: Error | undefined
  #resuming = false
  #wake: (() => void) | undefined

  constructor(stream: Stream, highWaterBytes = READ_HIGH_WATER_BYTES) {
    this.#stream = stream
    this.#high = highWaterBytes
    this.#low = Math.floor(highWaterBytes / 4)
    stream.addEventListener('message', ({ data }) => { this.#onMessage(data) })
    stream.addEventListener('end', () => { this.#onEnd() })
    stream.addEventListener('close', ({ error }) => {
      if (error !== undefined) this.#onError(error)
      else if (stream.readableEnded) this.#onEnd()
    })
    if (stream.status === 'reset' || stream.status === 'aborted') this.#error = new Error(`the stream was ${stream.status} at once`)
    else if (stream.readableEnded) this.#ended = true
  }

  /** Bytes that came in so far, taken or not. */
  get received(): number {
    return this.#received
  }

  /** Bytes that were taken so far. */
  get taken(): number {
    return this.#taken
  }

  /** At most `max` bytes that are here already; undefined where none are. */
  takeNow(max: number): Uint8Array | undefined {
    const first = this.#queue[0]
    if (first === undefined) return undefined
    const taken = first.byteLength <= max ? first : first.subarray(0, max)
    this.#queued -= taken.byteLength
    this.#taken += taken.byteLength
    if (taken === first) {
      this.#queue.shift()
      this.#queued -= BUFFER_COST
    } else {
      this.#queue[0] = first.subarray(max)
    }
    this.#resume()
    return taken
  }

  /** As `takeNow`, with all that waits in one buffer: a copy costs less than taking many small ones through a pipeline. */
  takeJoined(max: number): Uint8Array | undefined {
    const first = this.takeNow(max)
    if (first === undefined || first.byteLength === max || this.#queue.length === 0) return first
    const parts = [first]
    let length = first.byteLength
    for (let part = this.takeNow(max - length); part !== undefined; part = this.takeNow(max - length)) {
      parts.push(part)
      length += part.byteLength
      if (length === max) break
    }
    const joined = Buffer.concat(parts, length)
    for (const part of parts) copied(part)
    return joined
  }

  /** At most `max` bytes, or null after the end of the stream. Rejects with the stream's error where it was reset or aborted. */
  async take(max: number): Promise<Uint8Array | null> {
    while (true) {
      const taken = this.takeNow(max)
      if (taken !== undefined) return taken
      if (this.#error !== undefined) throw this.#error
      if (this.#ended) return null
      this.#resume()
      if (this.#queued > 0 || this.#finished()) continue
      const { promise, resolve } = Promise.withResolvers<undefined>()
      this.#wake = () => { resolve(undefined) }
      await promise
    }
  }

  #finished(): boolean {
    return this.#ended || this.#error !== undefined
  }

  #onMessage(data: Uint8Array | Iterable<Uint8Array>): void {
    if (data instanceof Uint8Array) this.#push(data)
    else for (const bytes of data) this.#push(bytes)
    // Inside resume() a pause would be undone as resume() returns; #resume pauses afterwards.
    if (!this.#resuming) this.#pause()
    this.#notify()
  }

  #push(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return
    this.#queue.push(bytes)
    this.#queued += bytes.byteLength + BUFFER_COST
    this.#received += bytes.byteLength
  }

  #onEnd(): void {
    // A reset ends the stream too, and 'close' then tells of it.
    if (this.#stream.status === 'reset' || this.#stream.status === 'aborted') return
    this.#ended = true
    this.#notify()
  }

  #onError(error: Error): void {
    this.#error ??= error
    this.#notify()
  }

  #notify(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  #pause(): void {
    if (this.#queued >= this.#high && this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  #resume(): void {
    if (this.#queued > this.#low || this.#stream.readStatus !== 'paused') return
    this.#resuming = true
    try {
      this.#stream.resume()
    } finally {
      this.#resuming = false
    }
    this.#pause()
  }
}
