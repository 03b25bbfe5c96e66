import { AsyncLocalStorage } from 'node:async_hooks'
import type { Tasks } from '../control/api.ts'
import type { Logger } from '../log.ts'
import type { Served } from '../p2p/protocol.ts'
import type { TaskContext } from '../tasks/context.ts'
import type { Phases } from './phases.ts'
import { traceRequests } from './requests.ts'
import { traceServing } from './serving.ts'
import { type Exporting, startExporting, type TracesInit } from './spans.ts'
import { traceWork } from './work.ts'

/** What is traced where a receiver is configured. Without one none of it is there: nothing is listened to, and nothing is loaded. */
export class Traces {
  #exporting: Exporting | undefined
  readonly #running = new AsyncLocalStorage<Phases>()
  #unwatch: () => void = () => undefined

  async start(init: TracesInit, components: { readonly logger: Logger }): Promise<void> {
    this.#exporting = await startExporting(init, components)
  }

  /** Traces the work of the host, and what is asked of `tasks`; answers with the tasks to ask. */
  watch(context: Pick<TaskContext, 'catalog' | 'jobs' | 'closures'>, tasks: Tasks): Tasks {
    if (this.#exporting === undefined) return tasks
    this.#unwatch = traceWork(this.#exporting, context, this.#running)
    return traceRequests(this.#exporting, tasks, this.#running)
  }

  /** An exchange that a peer has asked for is over. */
  served(exchange: Served): void {
    if (this.#exporting !== undefined) traceServing(this.#exporting, exchange)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unwatch()
    await this.#exporting?.stop()
  }
}
