import { formatBytes } from '../byte-size.ts'
import type { ExplanationJson } from '../control/api.ts'
import { formatTime, harmless } from './format.ts'
import { fields, table, type Cell, type Paint } from './table.ts'

const OUTCOME_STYLES = { used: 'green', lied: 'red', failed: 'yellow', discarded: 'dim' } as const

/** Why an image is where it is, and what its names are worth, for people. */
export function explanationView(told: ExplanationJson, paint: Paint): string {
  const head = fields({
    'NAR hash': told.narHash,
    'name': told.name,
    'state': told.state,
    'why': harmless(told.why),
    'not verified': told.reason === null ? null : harmless(told.reason),
    'next': harmless(told.next),
  }, paint)
  const sources = told.narHash === null ? [] : [sourcesView(told, paint)]
  return [head, ...sources, ...namesView(told, paint), ...section('refused', told.refused.map(({ by, detail }) => `${harmless(by)}: ${harmless(detail)}`), paint),
    ...section('tried', told.tried.map(({ at, event, reason }) => `${formatTime(at)}  ${harmless(event)}: ${harmless(reason)}`), paint)].join('\n\n')
}

function namesView({ names, refusedNames }: ExplanationJson, paint: Paint): string[] {
  return [
    ...section('names', names.map(({ name, publisher, publishedAt, expiresAt, narHash, accepted, verdict }) => {
      const who = `${harmless(publisher.split(':')[0] ?? '')}/${harmless(name)} is ${narHash}, published ${formatTime(publishedAt)}, until ${formatTime(expiresAt)}`
      return `${who}: ${paint(accepted ? 'green' : 'yellow', accepted ? 'accepted' : 'not accepted')}, ${harmless(verdict)}`
    }), paint),
    ...section('refused records of the name', refusedNames.map(({ publisherKey, at, reason }) => `${formatTime(at)}  of the key ${harmless(publisherKey.slice(0, 16))}…: ${harmless(reason)}`), paint),
  ]
}

function sourcesView({ narHash: own, peers, reused, zeros, wasted, repaired }: ExplanationJson, paint: Paint): string {
  const rows: Cell[][] = [
    ...peers.map(({ peerId, bytes, wasted: inVain = 0, outcome }): Cell[] => [`peer ${harmless(peerId)}`, formatBytes(bytes), formatBytes(inVain), { text: outcome, style: OUTCOME_STYLES[outcome] }]),
    ...reused.map(({ narHash, bytes }): Cell[] => [narHash === own ? 'itself' : `image ${narHash}`, formatBytes(bytes), '-', narHash === own ? 'the same in another place' : 'on this host']),
    ...zeros > 0 ? [['zeros', formatBytes(zeros), '-', 'neither sent nor written']] : [],
  ]
  if (rows.length === 0) return 'no bytes came from peers'
  return `${table(['FROM', 'BYTES', 'IN VAIN', 'OUTCOME'], rows, paint)}\nin vain in all: ${formatBytes(wasted)}${repaired > 0 ? `; repaired since it was first proven: ${formatBytes(repaired)}` : ''}`
}

function section(title: string, lines: readonly string[], paint: Paint): string[] {
  return lines.length === 0 ? [] : [[paint('bold', title), ...lines.map(line => `  ${line}`)].join('\n')]
}
