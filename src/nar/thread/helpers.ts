import { Worker } from 'node:worker_threads'
import type { HelperJob } from './helper.ts'

const idle: Worker[] = []

/** Has a second thread take a share of the work. Resolves when it has let go of what it shares with this one; without its help all only takes longer. */
export async function startHelper(job: HelperJob): Promise<void> {
  const helper = idle.pop() ?? new Worker(new URL('./helper.ts', import.meta.url), { execArgv: [] })
  const isAlive = await new Promise<boolean>(resolve => {
    const onMessage = (): void => { settle(true) }
    const onEnd = (): void => { settle(false) }
    const settle = (outcome: boolean): void => {
      helper.off('message', onMessage).off('error', onEnd).off('exit', onEnd)
      resolve(outcome)
    }
    helper.on('message', onMessage).on('error', onEnd).on('exit', onEnd)
    helper.postMessage(job)
  })
  if (isAlive) idle.push(helper)
}
