import type { Writable } from 'node:stream'
import { MAX_WAITING_EVENTS } from '../limits.ts'
import type { HostEvent } from './api.ts'

/**
 * Sends events to one reader, a line each. For a reader that is slow a bounded number of them waits; what comes on top of
 * that is counted and left out, and a `lost` event stands in its place.
 */
export class Outbox {
  readonly #response: Pick<Writable, 'write' | 'writableNeedDrain' | 'writableEnded' | 'on'>
  readonly #waiting: HostEvent[] = []
  #lost = 0

  constructor(response: Pick<Writable, 'write' | 'writableNeedDrain' | 'writableEnded' | 'on'>) {
    this.#response = response
    response.on('drain', () => { this.#flush() })
  }

  send(event: HostEvent): void {
    if (this.#waiting.length < MAX_WAITING_EVENTS) this.#waiting.push(event)
    else this.#lost++
    this.#flush()
  }

  #flush(): void {
    while (this.#waiting.length > 0 && !this.#response.writableNeedDrain && !this.#response.writableEnded) {
      this.#response.write(`${JSON.stringify(this.#waiting.shift())}\n`)
      if (this.#waiting.length === 0 && this.#lost > 0) {
        this.#waiting.push({ at: new Date().toISOString(), type: 'lost', count: this.#lost })
        this.#lost = 0
      }
    }
  }
}
