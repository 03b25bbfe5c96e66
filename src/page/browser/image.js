import { html, nothing } from 'lit-html'
import { chunkMapView } from './chunk-map.js'
import { evidenceView } from './evidence.js'
import { ago, clock, nameOf, plural, size } from './format.js'
import { emptyView, proseView, rowView, sectionView, stateView, tableView } from './parts.js'
import { sourcesView } from './sources.js'
import { transferView } from './transfers.js'

/** @import { ImageDetailsJson } from '../../control/api.ts' */
/** @import { Host } from './host.js' */

const JOURNAL_COLUMNS = ['when', 'what', 'state', 'why']

/** All that is known of one image. @param {Host} host @param {string} narHash */
export function imageView(host, narHash) {
  const known = host.known.get(narHash)
  const back = html`<p class="back"><a href="#/">← all of this host</a></p>`
  if (known === undefined) return html`${back}${emptyView(host.absent.has(narHash) ? 'This host has no such image any more.' : '…')}`
  const { details, explanation } = known
  const transfer = host.transfers?.find(one => one.narHash === narHash && one.direction === 'in')
  return html`
    ${back}
    <h1>${nameOf(details)} ${stateView(details.state)}${details.pinned ? html` <span class="tag">pinned</span>` : nothing}${details.private ? html` <span class="tag">private</span>` : nothing}</h1>
    <p class="why">It is here because ${explanation.why}.</p>
    ${transfer === undefined ? nothing : html`<div class="cards">${transferView(host, transfer, { isAlone: true })}</div>`}
    ${transfer === undefined && details.state !== 'verified' ? chunkMapView(host.chunks.get(narHash)) : nothing}
    ${sectionView('facts', 'What it is', null, factsView(details))}
    ${sectionView('sources', 'Where its bytes came from', null, sourcesView(details, explanation))}
    ${sectionView('evidence', titleOfEvidence(details), null, evidenceView(known, details))}
    ${sectionView('journal', 'Journal', details.journal.length, tableView('Journal of the image, the newest first', JOURNAL_COLUMNS, details.journal.toReversed().map(({ at, event, from, to, reason, code }) => rowView(JOURNAL_COLUMNS, [
      html`<time datetime=${at}>${clock(at)}</time>`, event, html`${from ?? ''} → ${to ?? 'removed'}`, html`${proseView(reason)}${code === null ? nothing : html` <code class="reason">${code}</code>`}`,
    ]))))}`
}

/** @param {ImageDetailsJson} details */
function titleOfEvidence({ state, journal }) {
  if (state === 'verified') return 'The evidence for it'
  return journal.some(({ evidence }) => evidence !== null) ? 'The evidence' : 'What happens'
}

/** @param {ImageDetailsJson} details */
function factsView(details) {
  const { narHash, narSize, name, path, storePath, otherStorePaths, references, deriver, ca, signatures, vouchedBy, createdAt, verifiedAt, provenAt, usedAt, note, closure, publishedNames } = details
  /** @type {readonly (readonly [string, unknown])[]} */
  const facts = [
    ['NAR hash', html`<code>${narHash}</code>`],
    ['size', narSize === null ? null : `${size(narSize)} (${narSize.toLocaleString('en')} bytes)`],
    ['name', name],
    ['published as', publishedNames.length === 0 ? null : publishedNames.map(published => html`<div>${published.name} <span class="quiet">by ${published.publisher}${published.trusted ? '' : ', who is not trusted here'}</span></div>`)],
    ['path', path === null ? null : html`<code>${path}</code>`],
    ['store path', storePath === null ? null : html`<code>${storePath}</code> <span class="quiet">vouched for by ${vouchedBy ?? 'nobody'}</span>`],
    ['also', otherStorePaths.length === 0 ? null : listView(otherStorePaths, 'store path')],
    ['closure', closure === null ? null : `${plural(closure.paths, 'store path')}, ${size(closure.narSize)}${closure.missing.length === 0 ? '' : `; ${closure.missing.length} missing here`}`],
    ['references', references.length === 0 ? null : listView(references, 'store path')],
    ['deriver', deriver === null ? null : html`<code>${deriver}</code>`],
    ['content address', ca === null ? null : html`<code>${ca}</code>`],
    ['signatures', signatures.length === 0 ? null : listView(signatures, 'signature')],
    ['created', html`<time datetime=${createdAt}>${clock(createdAt)}</time>`],
    ['verified', verifiedAt === null ? null : html`<time datetime=${verifiedAt}>${clock(verifiedAt)}</time>`],
    ['last proven', provenAt === null ? null : ago(provenAt, Date.now())],
    ['last used', ago(usedAt, Date.now())],
    ['note', note],
  ]
  return html`<dl class="facts">${facts.filter(([, value]) => value !== null).map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`
}

/** @param {readonly string[]} texts @param {string} one */
function listView(texts, one) {
  if (texts.length === 1) return html`<code>${texts[0]}</code>`
  return html`<details><summary>${plural(texts.length, one)}</summary><ul>${texts.map(text => html`<li><code>${text}</code></li>`)}</ul></details>`
}
