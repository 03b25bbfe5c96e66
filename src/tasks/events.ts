import { inspect } from 'node:util'
import type { HostEvent } from '../control/api.ts'
import { codeOf, messageOf } from '../errors.ts'
import { reasonCode } from '../image/reasons.ts'
import type { LogFields, Logger } from '../log.ts'
import type { Catalog } from '../store/catalog.ts'
import type { TaskContext } from './context.ts'
import type { Job, JobChange } from './jobs.ts'

export type HostEventListener = (event: HostEvent) => void
type WithoutTime<T> = T extends unknown ? Omit<T, 'at'> : never

/** Tells those who follow what happens on this host; it remembers nothing. */
export class Events {
  readonly #listeners = new Set<HostEventListener>()
  readonly #now: () => Date

  constructor({ now = () => new Date() }: { now?: () => Date } = {}) {
    this.#now = now
  }

  /** Calls `listener` with every event from now on; returns how to stop that. It must not take long, nor throw. */
  follow(listener: HostEventListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  tell(event: WithoutTime<HostEvent>): void {
    if (this.#listeners.size === 0) return
    const whole: HostEvent = { at: this.#now().toISOString(), ...event }
    for (const listener of this.#listeners) listener(whole)
  }
}

/** Has every change of an image, every piece of work and every coming and going of a peer told; returns how to stop that. */
export function tellOf({ events, catalog, jobs, node }: Pick<TaskContext, 'catalog' | 'jobs' | 'node'> & { readonly events: Events }): () => void {
  const stops = [
    catalog.onStep(({ narHash, event, from, to, reason, evidence }) => {
      const name = to === null ? null : catalog.get(narHash)?.name ?? null
      events.tell({ type: 'image', narHash: narHash.toSri(), name, event, from, to, reason, code: reasonCode({ event, evidence }) })
    }),
    jobs.onChange((job, change) => { events.tell(workEvent(catalog, job, change)) }),
    node.onPeerChange(({ peerId, change, reason }) => { events.tell({ type: 'peer', peerId, event: change, reason }) }),
  ]
  return () => { for (const stop of stops) stop() }
}

/** A logger whose warnings and errors are told as well. */
export function telling(logger: Logger, events: Events): Logger {
  const tell = (level: 'warn' | 'error', message: string, fields: LogFields = {}): void => {
    const shown = Object.entries(fields).map(([key, value]): [string, string] => [key, shownField(value)])
    events.tell({ type: 'log', level, message, fields: Object.fromEntries(shown) })
  }
  return {
    debug: (message, fields) => { logger.debug(message, fields) },
    info: (message, fields) => { logger.info(message, fields) },
    warn: (message, fields) => { logger.warn(message, fields); tell('warn', message, fields) },
    error: (message, fields) => { logger.error(message, fields); tell('error', message, fields) },
    child: fields => telling(logger.child(fields), events),
  }
}

function shownField(value: unknown): string {
  return typeof value === 'string' || value instanceof Error ? messageOf(value) : inspect(value, { breakLength: Infinity })
}

function workEvent(catalog: Pick<Catalog, 'get'>, { narHash, kind }: Job<unknown>, change: JobChange): WithoutTime<HostEvent> {
  const failed = change.event === 'failed'
  return {
    type: 'work', kind, narHash: narHash.toSri(), name: catalog.get(narHash)?.name ?? null, event: change.event,
    code: failed ? codeOf(change.error) : null, reason: failed ? messageOf(change.error) : null,
  }
}
