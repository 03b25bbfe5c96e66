/** Where the bytes of an image came from, as a bar and as a list. */

import { html, nothing, svg } from 'lit-html'
import { plural, size } from './format.js'
import { emptyView } from './parts.js'

/** @import { ExplanationJson, ImageDetailsJson } from '../../control/api.ts' */

/** @param {ImageDetailsJson} details @param {ExplanationJson} explanation */
export function sourcesView({ source }, { peers, reused, zeros, wasted }) {
  const fromPeers = peers.reduce((sum, { bytes }) => sum + bytes, 0)
  const fromHere = reused.reduce((sum, { bytes }) => sum + bytes, 0)
  const whole = fromPeers + fromHere + zeros
  if (whole === 0) return emptyView(source === 'import' ? 'It was imported from this host.' : 'Nothing of it has come yet.')
  /** @type {readonly (readonly [kind: string, words: string, bytes: number])[]} */
  const parts = [
    ['peers', `from ${plural(peers.filter(({ bytes }) => bytes > 0).length, 'peer')}`, fromPeers],
    ['reused', 'was here already, in other images or in itself', fromHere],
    ['zeros', 'zeros, which nobody sends', zeros],
  ]
  let at = 0
  return html`
    <svg class="bar" viewBox="0 0 1000 16" preserveAspectRatio="none" aria-hidden="true">
      ${parts.map(([kind, , bytes]) => {
        const [x, width] = [at, 1000 * bytes / whole]
        at += width
        return svg`<rect class=${kind} x=${x} y="0" width=${width} height="16"></rect>`
      })}
    </svg>
    <ul class="legend">
      ${parts.filter(([, , bytes]) => bytes > 0).map(([kind, words, bytes]) => html`<li class=${kind}><strong>${size(bytes)}</strong> ${words} <span class="quiet">${Math.round(100 * bytes / whole)} %</span></li>`)}
      ${wasted === 0 ? nothing : html`<li class="wasted"><strong>${size(wasted)}</strong> came in vain</li>`}
    </ul>`
}
