import type { Stats } from 'node:fs'

/** When a file was changed last, in microseconds; the same for the same file, however it is asked for. */
export function changeTime({ ctimeMs }: Pick<Stats, 'ctimeMs'>): number {
  return Math.floor(ctimeMs * 1000)
}
