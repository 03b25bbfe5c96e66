import { formatBytes } from '../byte-size.ts'
import { NarvikError } from '../errors.ts'
import type { Job, Progress } from './jobs.ts'

export interface Waiting {
  readonly timeoutSeconds?: number | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

/**
 * Waits for a job as one of its callers: its progress is passed on, and giving up leaves it running for the others.
 * @throws NarvikError `timed-out` after `timeoutSeconds`.
 */
export async function waitFor<Result>(job: Job<Result>, { timeoutSeconds, signal, onProgress }: Waiting): Promise<Result> {
  const unwatch = onProgress === undefined ? () => undefined : job.watch(onProgress)
  const timeout = timeoutSeconds === undefined ? undefined : AbortSignal.timeout(timeoutSeconds * 1000)
  const signals = [timeout, signal].filter(one => one !== undefined)
  try {
    return await Promise.race([job.result, rejectOn(signals, () => giveUp(job, timeoutSeconds, timeout))])
  } finally {
    unwatch()
  }
}

function rejectOn(signals: readonly AbortSignal[], error: () => NarvikError): Promise<never> {
  return new Promise((_resolve, reject) => {
    for (const signal of signals) {
      if (signal.aborted) reject(error())
      signal.addEventListener('abort', () => { reject(error()) }, { once: true })
    }
  })
}

/** Phases whose name alone does not say it. */
const DOING: Partial<Record<Progress['phase'], string>> = { queued: 'waiting for its turn', paused: 'paused for want of room', finding: 'looking for a provider' }

function giveUp({ narHash, progress }: Job<unknown>, seconds: number | undefined, timeout: AbortSignal | undefined): NarvikError {
  const doing = DOING[progress.phase] ?? progress.phase
  const state = progress.totalBytes === null ? `still ${doing}` : `${doing}, ${formatBytes(progress.bytes)} of ${formatBytes(progress.totalBytes)}`
  const details = { hint: 'It goes on in the background: `narvik transfers` shows it, `narvik cancel` gives it up' }
  if (timeout?.aborted === true) return new NarvikError('timed-out', `Cannot finish ${narHash.toSri()} in ${String(seconds)} s: found it ${state}, needed it done`, details)
  return new NarvikError('interrupted', `Cannot wait for ${narHash.toSri()} any longer: found that the caller went away, needed it to wait`, details)
}
