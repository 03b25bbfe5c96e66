import type { TaskContext } from './context.ts'

export interface CollectGarbageRequest {
  /** Bytes on disk to give free; where absent, whatever may go and has no name. */
  readonly freeBytes?: number
  /** Only says what would go. */
  readonly dryRun?: boolean
  readonly signal: AbortSignal
}

/** Gives room free on this host; what goes, and what had to stay, as it is shown. */
export async function collectGarbage({ space }: Pick<TaskContext, 'space'>, { freeBytes, dryRun = false, signal }: CollectGarbageRequest) {
  const { collected, kept, freedBytes } = await space.collect({ need: freeBytes ?? 'all', dryRun, signal })
  return {
    dryRun,
    freedBytes,
    collected: collected.map(({ narHash, usedAt, ...rest }) => ({ ...rest, narHash: narHash.toSri(), usedAt: usedAt.toISOString() })),
    kept: kept.map(({ narHash, ...rest }) => ({ ...rest, narHash: narHash.toSri() })),
  }
}
