/** What speaks against an image, or for it. */

import { html, nothing } from 'lit-html'
import { proseView, sharesView } from './parts.js'

/** @import { StageResult } from '../../image/verdict.ts' */
/** @import { Known } from './host.js' */

/**
 * The evidence of the last verdict on an image: both hashes, every stage, who sent what, and what happens next.
 * @param {Known | undefined} known @param {{ reason: string | null }} image
 */
export function evidenceView(known, { reason }) {
  if (known === undefined) return html`<p>${proseView(reason)}</p>`
  const { details, explanation } = known
  const verdict = details.journal.findLast(({ evidence }) => evidence?.verdict !== undefined)?.evidence?.verdict
  const peers = details.journal.findLast(({ evidence }) => evidence?.peers !== undefined)?.evidence?.peers ?? []
  return html`
    ${details.reason === null ? nothing : html`<p class="why">${proseView(details.reason)}</p>`}
    ${contradictions(verdict?.stages ?? []).map(comparedView)}
    ${sharesView(peers)}
    ${verdict === undefined ? nothing : html`<ul class="stages" aria-label="Stages of the verify pipeline">${verdict.stages.map(stageView)}</ul>`}
    <p class="next"><span>What happens next:</span> ${explanation.next}</p>`
}

/** The stages that found something else than they needed, each pair once: what is wrong with the hash is wrong with the metadata, too. @param {readonly StageResult[]} stages */
function contradictions(stages) {
  const failed = stages.filter(({ verdict, expected, found }) => verdict === 'fail' && expected !== undefined && found !== undefined)
  return failed.filter(({ expected, found }, index) => failed.findIndex(other => other.expected === expected && other.found === found) === index)
}

/** @param {StageResult} stage */
function comparedView({ stage, expected, found }) {
  return html`
    <dl class="compared" aria-label="What ${stage} compared">
      <div class="expected"><dt>expected</dt><dd><code>${expected}</code></dd></div>
      <div class="found"><dt>found</dt><dd><code>${found}</code></dd></div>
    </dl>`
}

/** @param {StageResult} stage */
function stageView({ stage, verdict, detail }) {
  return html`<li class="stage ${verdict}"><span class="verdict">${verdict}</span> <span class="word">${stage}</span> <span class="detail">${proseView(detail)}</span></li>`
}
