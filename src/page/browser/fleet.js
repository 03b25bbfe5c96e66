import { repeat } from 'lit-html/directives/repeat.js'
import { html, nothing } from 'lit-html'
import { clock, rate, shortPeer, size } from './format.js'
import { emptyView, peerView, proseView, rowView, sectionView, tableView } from './parts.js'

/** @import { PeerJson } from '../../control/api.ts' */
/** @import { Host } from './host.js' */

const COLUMNS = ['peer', 'connection', 'latency', 'runs', 'received', 'sent']
/** Peers that are listed. */
const LISTED = 200

/** The peers that this host sees. @param {Host} host */
export function fleetView(host) {
  const { peers } = host
  if (peers === undefined) return sectionView('fleet', 'Fleet', null, emptyView('…'))
  if (peers.length === 0) return sectionView('fleet', 'Fleet', null, emptyView('No peer is connected. Narvik goes on looking; narvik doctor says what may be in the way.'))
  const connected = peers.filter(({ direction }) => direction !== null).length
  const listed = peers.toSorted((a, b) => Number(b.direction !== null) - Number(a.direction !== null) || (a.peerId < b.peerId ? -1 : 1)).slice(0, LISTED)
  return sectionView('fleet', 'Fleet', connected, html`
    ${tableView('Peers, as this host sees them', COLUMNS, repeat(listed, ({ peerId }) => peerId, peer => peerRow(host, peer)))}
    ${peers.length > LISTED ? html`<p class="quiet">${peers.length - LISTED} more are not shown.</p>` : nothing}`)
}

/** @param {Host} host @param {PeerJson} peer */
function peerRow({ bans, rates }, peer) {
  const { sent = 0, received = 0 } = rates.get(peer.peerId) ?? {}
  return rowView(COLUMNS, [
    peerView(peer.peerId),
    connectionView(peer, bans.get(peer.peerId)),
    peer.latencyMs === null ? null : `${peer.latencyMs < 10 ? peer.latencyMs.toFixed(1) : Math.round(peer.latencyMs)} ms`,
    peer.agent,
    trafficView(peer.bytesReceived, received),
    trafficView(peer.bytesSent, sent),
  ])
}

/** @param {PeerJson} peer @param {{ reason: string, until: string } | undefined} ban */
function connectionView({ peerId, banned, direction, connectedSince, addresses }, ban) {
  if (banned) return html`<span class="outcome lied">banned</span>${ban === undefined ? nothing : html` <span class="quiet">until ${clock(ban.until)}: ${proseView(ban.reason)}</span>`}`
  if (direction === null) return null
  return html`<span title=${addresses.join('\n')} aria-label="${direction} connection with ${shortPeer(peerId)}">${direction}</span> <span class="quiet">since ${connectedSince === null ? nothing : clock(connectedSince)}</span>`
}

/** @param {number} bytes @param {number} bytesPerSecond */
function trafficView(bytes, bytesPerSecond) {
  if (bytes === 0) return null
  return html`${size(bytes)}${bytesPerSecond < 1 ? nothing : html` <span class="quiet rate">${rate(bytesPerSecond)}</span>`}`
}
