import { formatBytes } from '../byte-size.ts'
import type { CollectionJson, QueueJson, UsageJson } from '../control/api.ts'
import { formatTime, plural } from './format.ts'
import { fields, table, type Cell, type Paint } from './table.ts'

export function usageView(usage: UsageJson, paint: Paint): string {
  const { usedBytes, quotaBytes } = usage
  const own = fields({
    'used': quotaBytes === null ? `${formatBytes(usedBytes)}, no quota` : { text: `${formatBytes(usedBytes)} of ${formatBytes(quotaBytes)}`, style: usedBytes > quotaBytes ? 'red' : 'green' },
    'of it claimed': usage.claimedBytes === 0 ? null : `${formatBytes(usage.claimedBytes)}, for images on their way in`,
    'of it catalog': formatBytes(usage.catalogBytes),
    'disk': `${formatBytes(usage.freeBytes)} free${usage.minFreeBytes === 0 ? '' : `, fetches pause below ${formatBytes(usage.minFreeBytes)}`}`,
    'paused': usage.paused === null ? null : { text: usage.paused, style: 'yellow' },
  }, paint)
  if (usage.images.length === 0) return own
  const rows = usage.images.map(({ narHash, name, place, state, diskBytes, apparentBytes, pinned, usedAt }): Cell[] => [
    formatBytes(diskBytes), formatBytes(apparentBytes), place === 'quarantine' ? { text: `quarantine (${state})`, style: 'yellow' } : place,
    pinned ? 'yes' : '-', formatTime(usedAt), name ?? '-', narHash,
  ])
  return `${own}\n\n${table(['DISK', 'APPARENT', 'PLACE', 'PINNED', 'LAST USED', 'NAME', 'NAR HASH'], rows, paint)}`
}

export function queueView(queue: QueueJson, paint: Paint): string {
  if (queue.length === 0) return 'nothing waits to be received'
  return table(['POSITION', 'PRIORITY', 'SINCE', 'NAME', 'NAR HASH'], queue.map(({ position, priority, since, name, narHash }) => [String(position), String(priority), formatTime(since), name ?? '-', narHash]), paint)
}

export function collectionView({ dryRun, collected, kept, freedBytes }: CollectionJson, paint: Paint): string {
  const verb = dryRun ? 'would give free' : 'gave free'
  const parts = [collected.length === 0 ? `${dryRun ? 'nothing would go' : 'nothing went'}${kept.length === 0 ? ': what is here is pinned, needed by what stays, or has a name' : ''}` : `${verb} ${formatBytes(freedBytes)} of ${plural(collected.length, 'image')}`]
  if (collected.length > 0) {
    const rows = collected.map(({ narHash, name, what, diskBytes, usedAt }): Cell[] => [formatBytes(diskBytes), what, formatTime(usedAt), name ?? '-', narHash])
    parts.push(table(['DISK', 'WHAT', 'LAST USED', 'NAME', 'NAR HASH'], rows, paint))
  }
  if (kept.length > 0) parts.push(table(['KEPT', 'NAME', 'BECAUSE'], kept.map(({ narHash, name, reason }) => [narHash, name ?? '-', reason]), paint))
  return parts.join('\n\n')
}
