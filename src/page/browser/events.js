import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { clock } from './format.js'
import { emptyView, linkView, peerView, proseView, sectionView } from './parts.js'

/** @import { HostEvent } from '../../control/api.ts' */
/** @import { Host } from './host.js' */

/** What has happened since the page is open, the newest first. @param {Host} host */
export function eventsView({ happened }) {
  return sectionView('events', 'Lately', null, happened.length === 0
    ? emptyView('Nothing has happened since this page is open.')
    : html`<ol class="events">${repeat(happened, ({ id }) => id, event => html`<li class=${event.type === 'log' ? event.level : event.type}><time datetime=${event.at}>${clock(event.at)}</time> <span>${sentence(event)}</span></li>`)}</ol>`)
}

/** @param {HostEvent} event */
function sentence(event) {
  switch (event.type) {
    case 'image': return html`${linkView(event)}: ${event.from ?? 'new'} → ${event.to ?? 'removed'} <span class="quiet">${proseView(event.reason)}</span>`
    case 'work': return html`${linkView(event)}: ${event.kind} ${event.event}${event.reason === null ? nothing : html` <span class="quiet">${proseView(event.reason)}</span>`}`
    case 'peer': return html`peer ${peerView(event.peerId)} ${event.event}${event.reason === null ? nothing : html` <span class="quiet">${proseView(event.reason)}</span>`}`
    case 'log': return html`${event.level === 'warn' ? 'warning' : 'error'}: ${event.message} <span class="quiet">${proseView(Object.entries(event.fields).map(([key, value]) => `${key} ${value}`).join(', '))}</span>`
    case 'lost': return html`${event.count} events are missing here`
  }
}
