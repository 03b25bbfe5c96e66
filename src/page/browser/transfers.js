import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { chunkMapView } from './chunk-map.js'
import { ago, duration, percent, plural, rate, size } from './format.js'
import { emptyView, linkView, peerView, sectionView } from './parts.js'

/** @import { TransferJson } from '../../control/api.ts' */
/** @import { Host } from './host.js' */

/** @param {Host} host */
export function transfersView(host) {
  const { transfers, queue } = host
  if (transfers === undefined) return sectionView('transfers', 'Transfers', null, emptyView('…'))
  // What waits in the queue stands there.
  const waiting = new Map(queue.map(place => [place.narHash, place]))
  const moving = transfers.filter(({ narHash }) => !waiting.has(narHash))
  return sectionView('transfers', 'Transfers', transfers.length > 0 ? transfers.length : null, html`
    ${transfers.length === 0 ? emptyView('Nothing is being received.') : nothing}
    <ul class="cards">${repeat(moving, ({ narHash, startedAt }) => narHash + startedAt, transfer => html`<li>${transferView(host, transfer)}</li>`)}</ul>
    ${queue.length === 0 ? nothing : html`
      <h3>Waiting for their turn</h3>
      <ol class="queue">${queue.map(place => html`<li>${linkView(place)} <span class="quiet">priority ${place.priority}, since ${ago(place.since, Date.now())}</span></li>`)}</ol>`}`)
}

/** @param {Host} host @param {TransferJson} transfer @param {{ isAlone?: boolean }} [options] whether it is on the page of its image */
export function transferView(host, transfer, { isAlone = false } = {}) {
  const { narHash, phase, bytes, totalBytes, bytesPerSecond, peers } = transfer
  const share = percent(bytes, totalBytes)
  const isMoving = phase === 'receiving'
  return html`
    <article class="transfer" aria-label="Transfer of ${transfer.name ?? narHash}">
      ${isAlone ? html`<p class="alone"><span class="phase">${phase}</span></p>` : html`<h3>${linkView(transfer)} <span class="phase">${phase}</span></h3>`}
      <p class="figure">${share === null ? nothing : html`<strong>${share} %</strong> · `}${size(bytes)}${totalBytes === null ? nothing : ` of ${size(totalBytes)}`}${isMoving ? html` · ${rate(bytesPerSecond)} · ${remaining(transfer)}` : nothing}</p>
      ${totalBytes === null
        ? html`<progress aria-label=${phase}></progress>`
        : html`<progress max=${Math.max(totalBytes, 1)} .value=${bytes} aria-label="${phase}, ${share} percent"></progress>`}
      ${isMoving ? chunkMapView(host.chunks.get(narHash)) : nothing}
      ${peers.length === 0 ? nothing : html`
        <ul class="senders" aria-label="Peers that send">${peers.map(peer => html`<li>${peerView(peer.peerId)} <span>${size(peer.bytes)}</span>${peer.bytesPerSecond === undefined ? nothing : html` <span class="quiet">${rate(peer.bytesPerSecond)}</span>`}</li>`)}</ul>`}
    </article>`
}

/** @param {TransferJson} transfer */
function remaining({ bytes, totalBytes, bytesPerSecond, peers }) {
  if (totalBytes === null || bytesPerSecond <= 0) return peers.length === 0 ? 'waiting for a peer' : `from ${plural(peers.length, 'peer')}`
  return `${duration((totalBytes - bytes) / bytesPerSecond)} left, from ${plural(peers.length, 'peer')}`
}
