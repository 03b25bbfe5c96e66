/** Where in an image the bytes that are here are: a square for each piece, which fills. */

import { html, nothing } from 'lit-html'
import { counted, size } from './format.js'

/** @import { ChunkMapJson } from '../../control/api.ts' */

/** How full a square is, in so many steps. */
const SHADES = 8

/** @param {ChunkMapJson | undefined} map */
export function chunkMapView(map) {
  if (map === undefined || map.cells === '') return nothing
  const cells = Array.from(atob(map.cells), character => character.charCodeAt(0))
  return html`
    <figure class="chunks">
      <div class="map" role="img" aria-label=${describe(map)}>${cells.map(cell => html`<span class="c${shadeOf(cell)}"></span>`)}</div>
      <figcaption aria-hidden="true">${describe(map)}</figcaption>
    </figure>`
}

/** @param {number} cell 0 to 255 */
function shadeOf(cell) {
  // Only what is full looks full, and only what is empty looks empty.
  return cell === 0 ? 0 : cell === 255 ? SHADES : Math.min(SHADES - 1, 1 + Math.floor(cell * (SHADES - 1) / 255))
}

/** @param {ChunkMapJson} map */
function describe({ chunks, bytes, totalBytes }) {
  return chunks === null ? `${size(bytes)} of ${size(totalBytes)} are here` : `${counted(chunks.proven)} of ${counted(chunks.count)} chunks are here and proven`
}
