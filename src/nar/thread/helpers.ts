import { Worker } from 'node:worker_threads'
import { HELPER_PATIENCE_MS } from '../../limits.ts'
import type { HelperJob } from './helper.ts'

/** A second thread that takes a share of the work; without its help all only takes longer. */
export interface Help {
  /**
   * To be called when there is nothing left for it to begin. Resolves when it has let go of what it shares with this thread, or was given up:
   * whether the former. The memory of one that was given up must not be used again, since it may still be written to.
   */
  end(): Promise<boolean>
}

const idle: Worker[] = []

export function startHelper(job: HelperJob): Help {
  const helper = idle.pop() ?? startThread()
  const { promise: outcome, resolve } = Promise.withResolvers<'done' | 'dead' | 'silent'>()
  const onMessage = (): void => { resolve('done') }
  const onEnd = (): void => { resolve('dead') }
  helper.on('message', onMessage).on('error', onEnd).on('exit', onEnd)
  helper.postMessage(job)
  return {
    end: async () => {
      const timer = setTimeout(() => { resolve('silent') }, HELPER_PATIENCE_MS)
      const how = await outcome
      clearTimeout(timer)
      helper.off('message', onMessage).off('error', onEnd).off('exit', onEnd)
      if (how === 'done') idle.push(helper)
      // What hangs in the kernel ends when the kernel lets it: nobody waits for that.
      else void helper.terminate()
      return how !== 'silent'
    },
  }
}

function startThread(): Worker {
  const helper = new Worker(new URL('./helper.ts', import.meta.url), { execArgv: [] })
  // One that ends between two jobs must not get another, which nobody would answer; nor may its error end this thread.
  return helper.on('error', () => undefined).once('exit', () => {
    const at = idle.indexOf(helper)
    if (at >= 0) idle.splice(at, 1)
  })
}
