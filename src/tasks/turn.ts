import type { TaskContext } from './context.ts'
import type { Job } from './jobs.ts'

/** The turn of a fetch to receive: taken when it first has a provider, and kept until the fetch ends. */
export class Turn implements Disposable {
  readonly #context: Pick<TaskContext, 'queue' | 'catalog'>
  readonly #job: Job<unknown>
  #taken: Disposable | undefined

  constructor(context: Pick<TaskContext, 'queue' | 'catalog'>, job: Job<unknown>) {
    this.#context = context
    this.#job = job
  }

  get isTaken(): boolean {
    return this.#taken !== undefined
  }

  /** Resolves when it is the fetch's turn; at once where it has it. */
  async take(): Promise<void> {
    const { queue, catalog } = this.#context
    const { narHash, signal } = this.#job
    this.#taken ??= await queue.enter(narHash, { priority: catalog.get(narHash)?.priority ?? 0, signal, onWait: () => { this.#job.report({ phase: 'queued' }) } })
  }

  [Symbol.dispose](): void {
    this.#taken?.[Symbol.dispose]()
  }
}
