import type { Usage } from '../usage.ts'
import type { Station } from './network.ts'

/** A way to bring one file from the first station to all the others. */
export interface CrowdSystem {
  readonly name: string
  /** Brings it to the point at which the fetches can begin: everything runs, and is connected. */
  readonly prepare: (stations: readonly Station[], file: string, dir: string) => Promise<Crowd>
}

/** A crowd that waits for its start. */
export interface Crowd extends AsyncDisposable {
  /** One for each station that fetches; resolves when that one has the file and has checked it. */
  readonly fetches: readonly (() => Promise<unknown>)[]
  /** CPU time of all, and the most memory that any of them had. */
  readonly usage: () => Promise<Pick<Usage, 'peak' | 'cpuSeconds'>>
  /** What the system's own books say, when it is over. */
  readonly books?: () => Promise<string[]>
}

/** Within so many milliseconds all of a crowd have started. */
const STARTS_WITHIN_MS = 1000

/** Lets a crowd loose, evenly over a second; resolves with the seconds after the first start at which each was done. */
export async function release(fetches: readonly (() => Promise<unknown>)[]): Promise<number[]> {
  const started = performance.now()
  return Promise.all(fetches.map(async (fetch, number) => {
    await new Promise(resolve => setTimeout(resolve, number * STARTS_WITHIN_MS / fetches.length))
    await fetch()
    return (performance.now() - started) / 1000
  }))
}

/** What several processes have used together: all their time, and the peak of the greediest. */
export function together(usages: readonly Pick<Usage, 'peak' | 'cpuSeconds'>[]): Pick<Usage, 'peak' | 'cpuSeconds'> {
  return {
    peak: Math.max(...usages.map(({ peak }) => peak)),
    cpuSeconds: usages.reduce((total, { cpuSeconds }) => total + cpuSeconds, 0),
  }
}
