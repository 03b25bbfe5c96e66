import { formatBytes } from '../byte-size.ts'
import type { Evidence, StageResult } from '../image/verdict.ts'
import type { ImageState } from '../image/states.ts'
import type { BanJson, HostEvent, ImageDetailsJson, ImageJson, InstallResultJson, JournalEntryJson, PeerJson, PublishedNameJson, StatusJson, TransferJson, VerifyReportJson } from '../control/api.ts'
import { etaSeconds } from './bar.ts'
import { validityOf } from './expiry.ts'
import { formatSeconds, formatTime, harmless, plural } from './format.ts'
import { fields, table, type Cell, type Paint, type Style } from './table.ts'

/** What people are shown of each answer; scripts use `--json`. */

export function imageView(image: ImageJson, paint: Paint): string {
  return fields({
    'NAR hash': image.narHash,
    'name': image.name,
    'state': stateCell(image.state),
    'reason': image.reason,
    'size': image.narSize === null ? null : `${formatBytes(image.narSize)} (${plural(image.narSize, 'byte')})`,
    'path': image.path,
    'store path': image.storePath,
    'source': image.source,
    'private': image.private ? 'yes, served to nobody' : null,
    'note': image.note,
  }, paint)
}

export function imageDetailsView(image: ImageDetailsJson, paint: Paint): string {
  const more = fields({
    'references': image.references.length === 0 ? 'none' : image.references.join(' '),
    'closure': image.closure === null ? null : closureText(image.closure),
    'published as': image.publishedNames.length === 0 ? null : image.publishedNames.map(publishedText).join('; '),
    'also at': image.otherStorePaths.length === 0 ? null : image.otherStorePaths.join(' '),
    'vouched by': image.vouchedBy,
    'deriver': image.deriver,
    'ca': image.ca,
    'signatures': image.signatures.length === 0 ? 'none' : image.signatures.join(' '),
    'created': formatTime(image.createdAt),
    'verified': image.verifiedAt === null ? null : formatTime(image.verifiedAt),
    'proven': image.provenAt === null ? null : formatTime(image.provenAt),
    'used': formatTime(image.usedAt),
    'pinned': image.pinned ? 'yes' : null,
  }, paint)
  return [imageView(image, paint), more, `${paint('bold', 'journal')}\n${image.journal.map(entry => journalLines(entry, paint)).join('\n')}`].join('\n\n')
}

function closureText({ paths, narSize, missing }: NonNullable<ImageDetailsJson['closure']>): string {
  const here = `${plural(paths, 'path')}, ${formatBytes(narSize)}`
  return missing.length === 0 ? `${here}, all verified` : `${here}; not verified here: ${missing.join(' ')}`
}

export function imageListView(images: readonly ImageJson[], paint: Paint): string {
  if (images.length === 0) return 'no images yet; get one with: narvik import PATH, or narvik fetch REF'
  const rows = images.map(({ narHash, name, state, narSize, source, private: isPrivate, createdAt }) =>
    [narHash, name ?? '-', stateCell(state), narSize === null ? '-' : formatBytes(narSize), isPrivate ? `${source}, private` : source, formatTime(createdAt)])
  return table(['NAR HASH', 'NAME', 'STATE', 'SIZE', 'SOURCE', 'CREATED'], rows, paint)
}

export function publishedNamesView(names: readonly PublishedNameJson[], paint: Paint): string {
  if (names.length === 0) return 'no published names yet; publish one with: narvik publish REF --name NAME --key FILE'
  const rows = names.map(({ name, publisher, narHash, publishedAt, expiresAt, trusted, own }): Cell[] =>
    [name, publisher.slice(0, publisher.indexOf(':')), narHash, formatTime(publishedAt), expiryCell({ publishedAt, expiresAt, own }), trusted ? 'yes' : { text: 'no', style: 'yellow' }, own ? 'yes' : 'no'])
  return table(['NAME', 'PUBLISHER', 'NAR HASH', 'PUBLISHED', 'VALID UNTIL', 'TRUSTED', 'OURS'], rows, paint)
}

export function publishedNameView({ name, publisher, narHash, publishedAt, expiresAt, own }: PublishedNameJson, paint: Paint): string {
  return fields({ name, publisher, 'NAR hash': narHash, 'published': formatTime(publishedAt), 'valid until': expiryCell({ publishedAt, expiresAt, own }) }, paint)
}

function publishedText({ name, publisher, publishedAt, expiresAt }: PublishedNameJson): string {
  return `${publisher.slice(0, publisher.indexOf(':'))}/${name}, ${formatTime(publishedAt)}, valid until ${formatTime(expiresAt)}`
}

function expiryCell(name: Pick<PublishedNameJson, 'publishedAt' | 'expiresAt' | 'own'>): Cell {
  const text = formatTime(name.expiresAt)
  const validity = validityOf(name)
  if (validity === 'expired') return { text: `${text} (expired)`, style: 'red' }
  return validity === 'ending' ? { text: `${text} (${name.own ? 'publish it again' : 'expires soon'})`, style: 'yellow' } : text
}

export function installView({ storePath, added }: InstallResultJson): string {
  if (added.length === 0) return `${storePath} is valid in the Nix store already`
  const others = added.length - (added.includes(storePath) ? 1 : 0)
  return others === 0 ? `registered ${storePath}` : `registered ${storePath}, with ${plural(others, 'path')} that it needs`
}

export function verifyView({ results }: VerifyReportJson, paint: Paint): string {
  if (results.length === 0) return 'no images to verify'
  const rows = results.map(({ narHash, name, verdict, reason, repaired }): Cell[] => [verdictCell(verdict), narHash, name ?? '-', reason ?? repairNote(repaired)])
  return table(['VERDICT', 'NAR HASH', 'NAME', 'REASON'], rows, paint)
}

function repairNote(repaired: VerifyReportJson['results'][number]['repaired']): string {
  return repaired === undefined ? '' : `repaired ${formatBytes(repaired.bytes)}, ${formatBytes(repaired.received)} of it from peers`
}

export function statusView(status: StatusJson, paint: Paint): string {
  const images = Object.entries(status.images).filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`)
  return fields({
    'peer id': status.peerId,
    'addresses': status.addresses.length === 0 ? 'none' : status.addresses.join(' '),
    'version': status.version,
    'uptime': formatSeconds(status.uptimeSeconds),
    'peers': String(status.peers),
    'fleet': status.fleet ? 'yes, strangers are kept out' : 'no fleet key',
    'images': images.length === 0 ? 'none' : images.join(', '),
    'nix': status.nix.detail,
    'scrub': scrubCell(status.scrub),
    'paused': status.paused === null ? null : { text: status.paused, style: 'yellow' },
    'data': `${status.dataDir} (${formatBytes(status.freeBytes)} free)`,
    'socket': status.socket,
  }, paint)
}

function scrubCell({ lastAt, nextAt, underWay, damaged }: StatusJson['scrub']): Cell {
  const last = lastAt === null ? 'nothing proven again yet' : `last ${formatTime(lastAt)}`
  const next = underWay === null ? nextAt === null ? 'nothing due' : `next ${formatTime(nextAt)}` : `proving ${underWay}`
  return damaged === 0 ? `${last}, ${next}` : { text: `${last}, ${next}; found ${plural(damaged, 'damaged image')}`, style: 'red' }
}

export function peersView(peers: readonly PeerJson[], paint: Paint): string {
  if (peers.length === 0) return 'no peers yet'
  const rows = peers.map((peer): Cell[] => [
    peer.peerId,
    peer.banned ? { text: 'banned', style: 'red' } : peer.direction ?? 'none',
    peer.latencyMs === null ? '-' : `${peer.latencyMs.toFixed(1)} ms`,
    formatBytes(peer.bytesReceived),
    formatBytes(peer.bytesSent),
    peer.agent ?? '-',
    peer.addresses.join(' '),
  ])
  return table(['PEER', 'CONNECTION', 'LATENCY', 'RECEIVED', 'SENT', 'AGENT', 'ADDRESSES'], rows, paint)
}

export function bansView(bans: readonly BanJson[], paint: Paint): string {
  if (bans.length === 0) return 'no banned peers'
  return table(['PEER', 'UNTIL', 'TIMES', 'REASON'], bans.map(({ peerId, until, times, reason }) => [peerId, formatTime(until), String(times), reason]), paint)
}

export function transfersView(transfers: readonly TransferJson[], paint: Paint): string {
  if (transfers.length === 0) return 'no transfers under way'
  const rows = transfers.map((transfer): Cell[] => {
    const eta = etaSeconds(transfer)
    return [
      transfer.direction,
      transfer.name ?? transfer.narHash,
      transfer.queuePosition === null ? transfer.phase : `${transfer.phase}, number ${transfer.queuePosition}`,
      transfer.totalBytes === null ? formatBytes(transfer.bytes) : `${formatBytes(transfer.bytes)} / ${formatBytes(transfer.totalBytes)}`,
      `${formatBytes(transfer.bytesPerSecond)}/s`,
      eta === undefined ? '-' : formatSeconds(eta),
      String(transfer.peers.length),
    ]
  })
  return table(['DIRECTION', 'IMAGE', 'PHASE', 'DONE', 'RATE', 'ETA', 'PEERS'], rows, paint)
}

/** One line for each thing that happens. */
export function eventView(event: HostEvent, paint: Paint): string {
  return `${formatTime(event.at)}  ${paint('bold', event.type.padEnd(5))}  ${harmless(eventText(event))}`
}

function eventText(event: HostEvent): string {
  const code = 'code' in event && event.code !== null ? ` [${event.code}]` : ''
  const because = 'reason' in event && event.reason !== null ? `: ${event.reason}` : ''
  switch (event.type) {
    case 'image': return `${event.name ?? event.narHash}  ${[event.from, event.to].map(state => state ?? 'none').join(' -> ')}${code}${because}`
    case 'work': return `${event.kind} ${event.name ?? event.narHash} ${event.event}${code}${because}`
    case 'peer': return `${event.peerId} ${event.event}${because}`
    case 'log': return `${event.level}: ${event.message}${Object.entries(event.fields).map(([key, value]) => ` ${key}=${value}`).join('')}`
    case 'lost': return `${plural(event.count, 'event')} left out: this reader was too slow`
  }
}

function journalLines({ at, from, to, event, reason, evidence }: JournalEntryJson, paint: Paint): string {
  const change = [from, to].filter(state => state !== null).join(' -> ')
  return [`  ${formatTime(at)}  ${paint('cyan', harmless(event))}  ${change}: ${harmless(reason)}`, ...evidenceLines(evidence ?? {}, paint)].join('\n')
}

function * evidenceLines({ verdict, peers = [], notes = [] }: Evidence, paint: Paint): Generator<string> {
  for (const stage of verdict?.stages ?? []) yield * stageLines(stage, paint)
  for (const { peerId, bytes, outcome, detail } of peers) {
    yield `    ${paint(outcome === 'lied' ? 'red' : 'dim', outcome)}  ${formatBytes(bytes)} from ${harmless(peerId)}${detail === null ? '' : `: ${harmless(detail)}`}`
  }
  for (const note of notes) yield `    note  ${harmless(note)}`
}

function * stageLines({ stage, verdict, detail, expected, found, signatures = [] }: StageResult, paint: Paint): Generator<string> {
  yield `    ${paint(VERDICT_STYLES[verdict], verdict)}  ${harmless(stage)}: ${harmless(detail)}`
  if (expected !== undefined) yield `      expected  ${harmless(expected)}`
  if (found !== undefined) yield `      found     ${harmless(found)}`
  for (const { verdict: worth, keyName, text } of signatures) yield `      ${worth} signature of ${harmless(keyName ?? text)}`
}

const VERDICT_STYLES = { pass: 'green', fail: 'red', skipped: 'dim' } as const satisfies Record<StageResult['verdict'], Style>

const STATE_STYLES = { wanted: 'yellow', receiving: 'yellow', quarantined: 'yellow', verified: 'green', rejected: 'red' } as const satisfies Record<ImageState, Style>

function stateCell(state: ImageState): Cell {
  return { text: state, style: STATE_STYLES[state] }
}

function verdictCell(verdict: 'pass' | 'fail'): Cell {
  return { text: verdict, style: VERDICT_STYLES[verdict] }
}
