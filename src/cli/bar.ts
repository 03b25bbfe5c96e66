import { formatBytes } from '../byte-size.ts'
import type { Progress } from '../control/api.ts'
import { formatSeconds, plural } from './format.ts'

type Pace = Pick<Progress, 'bytes' | 'totalBytes' | 'bytesPerSecond'>

/** Seconds until the phase is done; undefined while nothing says how long it takes. */
export function etaSeconds({ bytes, totalBytes, bytesPerSecond }: Pace): number | undefined {
  return totalBytes === null || bytesPerSecond <= 0 ? undefined : Math.max(0, totalBytes - bytes) / bytesPerSecond
}

/** One line about work under way, of at most `columns` characters: what matters least is left out first. */
export function progressLine(progress: Progress, columns: number): string {
  const { phase, bytes, totalBytes, bytesPerSecond, peers } = progress
  const eta = etaSeconds(progress)
  const share = totalBytes === null ? undefined : totalBytes === 0 ? 1 : Math.min(1, bytes / totalBytes)
  const parts = [
    phase.padEnd(10),
    share === undefined ? undefined : `${String(Math.floor(share * 100)).padStart(3)} %`,
    totalBytes === null ? (bytes > 0 ? formatBytes(bytes) : undefined) : `${formatBytes(bytes)} / ${formatBytes(totalBytes)}`,
    bytesPerSecond > 0 ? `${formatBytes(bytesPerSecond)}/s` : undefined,
    eta === undefined || share === 1 ? undefined : `ETA ${formatSeconds(eta)}`,
    phase === 'finding' || phase === 'receiving' ? plural(peers.length, 'peer') : undefined,
  ].filter(part => part !== undefined)
  while (parts.length > 1 && parts.join('  ').length > columns) parts.pop()
  const room = columns - parts.join('  ').length - 2
  if (share !== undefined && room >= 8) parts.splice(1, 0, drawBar(share, Math.min(room, 40)))
  return parts.join('  ').slice(0, columns)
}

function drawBar(share: number, width: number): string {
  const done = Math.round(share * (width - 2))
  return `[${'#'.repeat(done)}${'-'.repeat(width - 2 - done)}]`
}
