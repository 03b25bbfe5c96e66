import type { ExplanationJson } from '../control/api.ts'
import { formatBytes, formatTime, harmless } from './format.ts'
import { fields, table, type Cell, type Paint } from './table.ts'

const OUTCOME_STYLES = { used: 'green', lied: 'red', failed: 'yellow', discarded: 'dim' } as const

/** Why an image is where it is, for people. */
export function explanationView(told: ExplanationJson, paint: Paint): string {
  const head = fields({
    'NAR hash': told.narHash,
    'name': told.name,
    'state': told.state,
    'why': harmless(told.why),
    'not verified': told.reason === null ? null : harmless(told.reason),
    'next': harmless(told.next),
  }, paint)
  return [head, sourcesView(told, paint), ...section('refused', told.refused.map(({ by, detail }) => `${harmless(by)}: ${harmless(detail)}`), paint),
    ...section('tried', told.tried.map(({ at, event, reason }) => `${formatTime(at)}  ${harmless(event)}: ${harmless(reason)}`), paint)].join('\n\n')
}

function sourcesView({ peers, reused, zeros, wasted }: ExplanationJson, paint: Paint): string {
  const rows: Cell[][] = [
    ...peers.map(({ peerId, bytes, wasted: inVain = 0, outcome }): Cell[] => [`peer ${harmless(peerId)}`, formatBytes(bytes), formatBytes(inVain), { text: outcome, style: OUTCOME_STYLES[outcome] }]),
    ...reused.map(({ narHash, bytes }): Cell[] => [`image ${narHash}`, formatBytes(bytes), '-', 'on this host']),
    ...zeros > 0 ? [['zeros', formatBytes(zeros), '-', 'neither sent nor written']] : [],
  ]
  if (rows.length === 0) return 'no bytes came from peers'
  return `${table(['FROM', 'BYTES', 'IN VAIN', 'OUTCOME'], rows, paint)}\nin vain in all: ${formatBytes(wasted)}`
}

function section(title: string, lines: readonly string[], paint: Paint): string[] {
  return lines.length === 0 ? [] : [[paint('bold', title), ...lines.map(line => `  ${line}`)].join('\n')]
}
