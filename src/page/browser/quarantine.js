import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { evidenceView } from './evidence.js'
import { size } from './format.js'
import { emptyView, linkView, sectionView, stateView } from './parts.js'

/** @import { ImageJson } from '../../control/api.ts' */
/** @import { Host } from './host.js' */

/** Images whose evidence is open until somebody closes it. */
export const SHOWN_EVIDENCE = 3
/** Images that are listed. */
const LISTED = 50

/** What waits for its verdict, or has failed: the rejected first. @param {readonly ImageJson[] | undefined} images */
export function quarantined(images = []) {
  const rejected = images.filter(({ state }) => state === 'rejected').toSorted((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt))
  return [...rejected, ...images.filter(({ state }) => state === 'quarantined')]
}

/** @typedef {{ isOpen: (narHash: string) => boolean | undefined, onToggle: (narHash: string, isOpen: boolean) => void }} Opening */

/** @param {Host} host @param {Opening} opening */
export function quarantineView(host, opening) {
  if (host.images === undefined) return sectionView('quarantine', 'Quarantine', null, emptyView('…'))
  const held = quarantined(host.images)
  if (held.length === 0) return sectionView('quarantine', 'Quarantine', null, emptyView('Empty: no image has failed verification, and none waits for its verdict.'))
  return sectionView('quarantine', 'Quarantine', held.length, html`
    <div class="cards">
      ${repeat(held.slice(0, LISTED), ({ narHash }) => narHash, (image, index) => heldView(host, image, opening.isOpen(image.narHash) ?? index < SHOWN_EVIDENCE, opening))}
    </div>
    ${held.length > LISTED ? html`<p class="quiet">${held.length - LISTED} more are in the list of images.</p>` : nothing}`)
}

/** @param {Host} host @param {ImageJson} image @param {boolean} isOpen @param {Opening} opening */
function heldView(host, image, isOpen, opening) {
  /** @param {Event} event */
  const toggled = event => {
    const { open } = /** @type {HTMLDetailsElement} */ (event.currentTarget)
    if (open !== isOpen) opening.onToggle(image.narHash, open)
  }
  return html`
    <details class="held ${image.state}" .open=${isOpen} @toggle=${toggled}>
      <summary>${stateView(image.state)} ${linkView(image)} ${image.reasonCode === null ? nothing : html`<code class="reason">${image.reasonCode}</code>`} <span class="quiet">${image.narSize === null ? nothing : size(image.narSize)}</span></summary>
      ${isOpen ? evidenceView(host.known.get(image.narHash), image) : nothing}
    </details>`
}
