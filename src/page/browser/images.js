import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { ago, plural, size } from './format.js'
import { emptyView, hashView, linkView, rowView, sectionView, stateView, tableView } from './parts.js'

/** @import { ImageJson } from '../../control/api.ts' */
/** @import { Host } from './host.js' */
/** @typedef {{ filter: string, state: string, limit: number }} Choices */

const COLUMNS = ['image', 'state', 'size', 'NAR hash', 'why it is here', 'verified']
const STATES = ['wanted', 'receiving', 'quarantined', 'verified', 'rejected']
/** Rows that one press shows more. */
const MORE = 100

/** @param {Host} host @param {Choices} choices @param {(change: Partial<Choices>) => void} onChoice */
export function imagesView({ images }, choices, onChoice) {
  if (images === undefined) return sectionView('images', 'Images', null, emptyView('…'))
  if (images.length === 0) return sectionView('images', 'Images', null, emptyView('None yet. narvik import PATH adds one from this host, narvik fetch REF brings one from the fleet.'))
  const found = images.filter(image => matches(image, choices)).toSorted((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt))
  const listed = found.slice(0, choices.limit)
  return sectionView('images', 'Images', images.length, html`
    <form class="choices" role="search" @submit=${(/** @type {Event} */ event) => { event.preventDefault() }}>
      <label>Find <input type="search" .value=${choices.filter} placeholder="name, hash or store path" @input=${(/** @type {Event} */ event) => { onChoice({ filter: valueOf(event), limit: MORE }) }}></label>
      <label>State <select .value=${choices.state} @change=${(/** @type {Event} */ event) => { onChoice({ state: valueOf(event), limit: MORE }) }}>
        <option value="">all</option>${STATES.map(state => html`<option value=${state}>${state}</option>`)}
      </select></label>
    </form>
    ${found.length === 0 ? emptyView('No image fits.') : tableView('Images of this host', COLUMNS, repeat(listed, ({ narHash }) => narHash, imageRow))}
    ${found.length > listed.length ? html`<p><button type="button" @click=${() => { onChoice({ limit: choices.limit + MORE }) }}>Show more</button> <span class="quiet">${plural(found.length - listed.length, 'image')} not shown</span></p>` : nothing}`)
}

/** @param {ImageJson} image @param {Choices} choices */
function matches({ name, narHash, storePath, state }, choices) {
  if (choices.state !== '' && choices.state !== state) return false
  const words = choices.filter.trim().toLowerCase()
  return words === '' || [name, narHash, storePath].some(text => text?.toLowerCase().includes(words) === true)
}

/** @param {Event} event */
function valueOf(event) {
  return /** @type {HTMLInputElement} */ (event.currentTarget).value
}

/** @param {ImageJson} image */
function imageRow(image) {
  const { name, narHash, narSize, state, source, pinned, verifiedAt, storePath } = image
  return rowView(COLUMNS, [
    html`${linkView(image)}${pinned ? html` <span class="tag">pinned</span>` : nothing}${image.private ? html` <span class="tag">private</span>` : nothing}${name !== null || storePath === null ? nothing : html`<br><span class="quiet path">${storePath}</span>`}`,
    stateView(state),
    narSize === null ? null : size(narSize),
    hashView(narHash),
    source === 'import' ? 'imported here' : 'fetched',
    verifiedAt === null ? null : ago(verifiedAt, Date.now()),
  ])
}
