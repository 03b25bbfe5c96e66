/** Small parts that several views have. */

import { html, nothing } from 'lit-html'
import { nameOf, shortHash, shortPeer, size } from './format.js'

/** @import { PeerShare } from '../../image/verdict.ts' */

/** The state of an image. @param {string} state */
export function stateView(state) {
  return html`<span class="state ${state}">${state}</span>`
}

/** The name of an image, or the start of its hash, as a way to all that is known of it. @param {{ name: string | null, narHash: string }} image */
export function linkView(image) {
  return html`<a class=${image.name === null ? 'hash' : 'name'} href="#/image/${encodeURIComponent(image.narHash)}" title=${image.narHash}>${nameOf(image)}</a>`
}

/** @param {string} narHash */
export function hashView(narHash) {
  return html`<code class="hash" title=${narHash}>${shortHash(narHash)}</code>`
}

/** @param {string} peerId */
export function peerView(peerId) {
  return html`<code title=${peerId}>${shortPeer(peerId)}</code>`
}

/** What identifies a peer or an image, within a sentence. */
const IDENTIFIER = /\b(12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|sha256-[A-Za-z0-9+/]{43}=)/

/** A sentence of the daemon, with its long identifiers shortened; all of each is in its title. @param {string | null} text */
export function proseView(text) {
  return (text ?? '').split(IDENTIFIER).map((part, index) => index % 2 === 0 ? part : part.startsWith('sha256-') ? hashView(part) : peerView(part))
}

/** @param {string} text */
export function emptyView(text) {
  return html`<p class="empty">${text}</p>`
}

/**
 * A part of the page with a heading.
 * @param {string} id @param {string} title @param {unknown} count @param {unknown} body
 */
export function sectionView(id, title, count, body) {
  return html`
    <section id=${id} aria-labelledby="${id}-title">
      <h2 id="${id}-title">${title}${count === null ? nothing : html` <span class="count">${count}</span>`}</h2>
      ${body}
    </section>`
}

/**
 * A table that becomes a list of cards where there is little room. The roles are said because a table that is laid out in another way loses them.
 * @param {string} name @param {readonly string[]} columns @param {unknown} rows of `rowView`
 */
export function tableView(name, columns, rows) {
  return html`
    <table role="table" aria-label=${name}>
      <thead role="rowgroup"><tr role="row">${columns.map(column => html`<th role="columnheader" scope="col">${column}</th>`)}</tr></thead>
      <tbody role="rowgroup">${rows}</tbody>
    </table>`
}

/**
 * @param {readonly string[]} columns @param {readonly unknown[]} cells as many; null where there is nothing to say
 */
export function rowView(columns, cells) {
  return html`<tr role="row">${cells.map((cell, index) => html`<td role="cell" data-label=${columns[index] ?? ''} class=${cell === null ? 'nothing' : ''}><div>${cell ?? '–'}</div></td>`)}</tr>`
}

const SHARE_COLUMNS = ['peer', 'sent', 'in vain', 'outcome', 'what it did']

/** Who sent what of an image. @param {readonly PeerShare[]} shares */
export function sharesView(shares) {
  if (shares.length === 0) return nothing
  return tableView('Peers that sent bytes of it', SHARE_COLUMNS, shares.map(({ peerId, bytes, wasted = 0, outcome, detail }) => rowView(SHARE_COLUMNS, [
    peerView(peerId), size(bytes), wasted === 0 ? null : size(wasted), html`<span class="outcome ${outcome}">${outcome}</span>`, detail === null ? null : proseView(detail),
  ])))
}
