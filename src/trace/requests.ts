import type { AsyncLocalStorage } from 'node:async_hooks'
import type { LongWork, Tasks } from '../control/api.ts'
import { codeOf } from '../errors.ts'
import { Phases } from './phases.ts'
import type { Facts, Spans } from './spans.ts'

/** The same tasks, of which an import and an installation are traces, from the request to its answer. */
export function traceRequests(spans: Spans, tasks: Tasks, running: AsyncLocalStorage<Phases>): Tasks {
  async function traced<Request extends LongWork, Result>(name: string, request: Request, run: (request: Request) => Promise<Result>, describe: (result: Result) => Facts): Promise<Result> {
    const span = spans.start(name)
    const phases = new Phases(spans, span)
    try {
      const result = await running.run(phases, () => run({ ...request, onProgress: progress => { phases.take(progress); request.onProgress(progress) } }))
      phases.end()
      span.add(describe(result))
      span.end()
      return result
    } catch (error) {
      phases.end(codeOf(error))
      span.end({ code: codeOf(error) })
      throw error
    }
  }

  return {
    ...tasks,
    importImage: request => traced('import', request, whole => tasks.importImage(whole), ({ narHash, narSize }) => ({ nar_hash: narHash, nar_size: narSize ?? 0 })),
    installImage: request => traced('install', request, whole => tasks.installImage(whole), ({ added }) => ({ added: added.length })),
  }
}
