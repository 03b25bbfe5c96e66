import { html, nothing, render } from 'lit-html'
import { fleetView } from './fleet.js'
import { clock, counted, duration, shortPeer, size } from './format.js'
import { Host } from './host.js'
import { eventsView } from './events.js'
import { imageView } from './image.js'
import { imagesView } from './images.js'
import { quarantineView, quarantined, SHOWN_EVIDENCE } from './quarantine.js'
import { transfersView } from './transfers.js'

/** @import { StatusJson } from '../../control/api.ts' */

/** What a person has chosen on this page. @typedef {{ filter: string, state: string, limit: number, opened: Map<string, boolean> }} Choices */

/** @type {Choices} */
const choices = { filter: '', state: '', limit: 100, opened: new Map() }
const host = new Host(redrawSoon)
let isDue = false

window.addEventListener('hashchange', () => {
  window.scrollTo(0, 0)
  redraw()
  document.querySelector('main')?.focus({ preventScroll: true })
})
redraw()
host.start()

/** Many changes at once are one redrawing. */
function redrawSoon() {
  if (isDue) return
  isDue = true
  requestAnimationFrame(() => {
    isDue = false
    redraw()
  })
}

function redraw() {
  const shown = shownImage()
  const opened = quarantined(host.images).filter(({ narHash }, index) => choices.opened.get(narHash) ?? index < SHOWN_EVIDENCE)
  host.watch(shown === undefined ? opened.map(({ narHash }) => narHash) : [shown])
  document.title = titleOf(shown)
  render(pageView(shown), document.body)
}

/** The NAR hash in the address: `#/image/sha256-…`. */
function shownImage() {
  try {
    return /^#\/image\/(sha256-[A-Za-z0-9+/]{43}=)$/.exec(decodeURIComponent(location.hash))?.[1]
  } catch {
    // An address that can't be read is that of the whole.
    return undefined
  }
}

/** @param {string | undefined} shown */
function titleOf(shown) {
  const moving = host.transfers?.length ?? 0
  const name = shown === undefined ? undefined : host.images?.find(({ narHash }) => narHash === shown)?.name ?? shown
  const what = name ?? (host.status === undefined ? undefined : `host ${shortPeer(host.status.peerId)}`)
  return [moving > 0 ? `(${moving}) ` : '', what === undefined ? '' : `${what} · `, 'Narvik'].join('')
}

/** @param {string | undefined} shown */
function pageView(shown) {
  return html`
    <a class="skip" href="#main" @click=${skip}>Skip to the contents</a>
    ${headerView()}
    ${noticesView()}
    <main id="main" tabindex="-1" class=${host.connection === 'lost' ? 'stale' : ''}>
      ${shown === undefined ? overview() : imageView(host, shown)}
    </main>
    <footer><p>This page only shows; <code>narvik</code> acts. ${host.status === undefined ? nothing : html`Narvik ${host.status.version}, up for ${duration(host.status.uptimeSeconds)}.`}</p></footer>`
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault()
  document.querySelector('main')?.focus()
}

function headerView() {
  const { status, connection } = host
  const words = { opening: 'connecting', live: 'live', lost: 'no answer' }
  return html`
    <header>
      <a class="brand" href="#/"><img src="icon.svg" alt="" width="24" height="24"> Narvik</a>
      <p class="peer">${status === undefined ? nothing : html`host <code title=${status.peerId}>${shortPeer(status.peerId)}</code>`}</p>
      <p class="connection ${connection}" role="status"><span class="dot" aria-hidden="true"></span>${words[connection]}</p>
    </header>`
}

function noticesView() {
  const { status, connection, heardAt, complaint } = host
  return html`
    ${connection === 'lost' ? html`
      <p class="notice bad" role="alert">${complaint === undefined ? 'The daemon does not answer.' : `The daemon answers with an error: ${complaint}.`} ${status === undefined ? 'It is asked again every second.' : `What is shown is as it was at ${clock(new Date(heardAt).toISOString())}; it is asked again every second.`}</p>` : nothing}
    ${status?.paused ? html`<p class="notice">Fetches are paused: ${status.paused}</p>` : nothing}
    ${status !== undefined && !status.fleet ? html`<p class="notice quiet">This host is in no fleet: no fleet key keeps strangers out.</p>` : nothing}`
}

function overview() {
  return html`
    <h1 class="hidden">This host</h1>
    ${figuresView()}
    ${transfersView(host)}
    ${quarantineView(host, { isOpen: narHash => choices.opened.get(narHash), onToggle: (narHash, isOpen) => { choices.opened.set(narHash, isOpen); redrawSoon() } })}
    ${fleetView(host)}
    ${imagesView(host, choices, change => { Object.assign(choices, change); redrawSoon() })}
    ${eventsView(host)}`
}

/** The newest numbers there are: the lists are asked for more often than the status. */
function figuresView() {
  const { status, images, peers } = host
  /** @param {(keyof StatusJson['images'])[]} states */
  const count = (...states) => images === undefined ? states.reduce((sum, state) => sum + (status?.images[state] ?? 0), 0) : images.filter(({ state }) => states.includes(state)).length
  const rejected = count('rejected')
  /** @type {readonly (readonly [label: string, value: string, state: string])[]} */
  const figures = status === undefined
    ? ['verified', 'on the way', 'rejected', 'peers', 'free'].map(label => /** @type {const} */ ([label, '–', '']))
    : [
        ['verified', counted(count('verified')), 'verified'],
        ['on the way', counted(count('wanted', 'receiving', 'quarantined')), 'receiving'],
        ['rejected', counted(rejected), rejected > 0 ? 'rejected' : ''],
        ['peers', counted(peers?.filter(({ direction }) => direction !== null).length ?? status.peers), ''],
        ['free', size(status.freeBytes), ''],
      ]
  return html`<dl class="figures" aria-label="This host in figures">${figures.map(([label, value, state]) => html`<div class=${state}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`
}
