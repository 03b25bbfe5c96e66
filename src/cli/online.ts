import { resolve } from 'node:path'
import { PEER_ID } from '../config.ts'
import { NarvikError } from '../errors.ts'
import { parseRef, refText } from '../image/ref.ts'
import { isPolicyRefusal } from '../image/verdict.ts'
import type { VerifyReportJson } from '../control/api.ts'
import type { ControlClient } from '../control/client.ts'
import { plural } from './format.ts'
import type { Action, Answer } from './outcome.ts'
import { explanationView } from './explanation.ts'
import { collectionView, queueView, usageView } from './space-views.ts'
import * as views from './views.ts'
import type { Paint } from './table.ts'

/** The commands that ask the daemon. References are checked here too, so that a wrong one is wrong usage with or without a daemon. */

interface Whole {
  readonly closure?: boolean
}

interface Named extends Whole {
  readonly name?: string
  readonly private?: boolean
}

export function importImage(path: string, { name, closure, private: isPrivate }: Named): Action {
  return async ({ client, onProgress }) => {
    const image = await client().import({ path: resolve(path), ...(name === undefined ? {} : { name }), ...whole(closure), ...(isPrivate === true ? { private: true } : {}) }, { onProgress })
    return answer(image, views.imageView)
  }
}

interface FetchOptions extends Named {
  readonly timeout?: number
  readonly install?: boolean
  readonly priority?: number
}

export function fetchImage(ref: string, { name, timeout, closure, install, priority }: FetchOptions): Action {
  const request = {
    ref: checkRef(ref), ...(name === undefined ? {} : { name }), ...whole(closure), ...(install === true ? { install } : {}),
    ...(timeout === undefined ? {} : { timeoutSeconds: timeout }), ...(priority === undefined ? {} : { priority }),
  }
  return async ({ client, onProgress }) => answer(await client().fetch(request, { onProgress }), views.imageView)
}

export function list(): Action {
  return async ({ client }) => answer(await client().list(), views.imageListView)
}

export function names(): Action {
  return async ({ client }) => answer(await client().names(), views.publishedNamesView)
}

export function show(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().show(checked), views.imageDetailsView)
}

export function explain(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().explain(checked), explanationView)
}

export function verify(ref: string | undefined, { all = false, repair = false }: { readonly all?: boolean, readonly repair?: boolean }): Action {
  if ((ref === undefined) !== all) {
    throw new NarvikError('invalid-argument', `Cannot verify: found ${all ? 'both REF and --all' : 'neither REF nor --all'}, needed one of the two`)
  }
  const request = ref === undefined ? { all: true } as const : { ref: checkRef(ref) }
  return async ({ client, onProgress }) => {
    const report = await client().verify({ ...request, ...repair && { repair } }, { onProgress })
    const failure = verifyFailure(report)
    return { ...answer(report, views.verifyView), ...(failure === undefined ? {} : { failure }) }
  }
}

export function exportImage(ref: string, dest: string): Action {
  const checked = checkRef(ref)
  return async ({ client, onProgress }) => answer(await client().export({ ref: checked, dest: resolve(dest) }, { onProgress }), ({ path }) => path)
}

interface InstallOptions extends Whole {
  readonly checkSigs: boolean
}

export function install(ref: string, { checkSigs, closure }: InstallOptions): Action {
  const request = { ref: checkRef(ref), ...whole(closure), ...(checkSigs ? {} : { checkSignatures: false }) }
  return async ({ client, onProgress }) => answer(await client().install(request, { onProgress }), views.installView)
}

export function makePrivate(ref: string, { off = false }: { readonly off?: boolean }): Action {
  const request = { ref: checkRef(ref), private: !off }
  return async ({ client }) => answer(await client().makePrivate(request), views.imageView)
}

export function remove(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().remove(checked), ({ narHash, name }) => `removed ${narHash}${name === null ? '' : ` (${name})`}`)
}

export function queue(): Action {
  return async ({ client }) => answer(await client().queue(), queueView)
}

export function moveInQueue(ref: string, position: number): Action {
  const request = { ref: checkRef(ref), position }
  return async ({ client }) => answer(await client().moveInQueue(request), queueView)
}

export function cancel(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().cancel(checked), ({ narHash, name }) => `cancelled ${narHash}${name === null ? '' : ` (${name})`}`)
}

export function pin(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().pin(checked), ({ narHash, name }) => `pinned ${narHash}${name === null ? '' : ` (${name})`}`)
}

export function unpin(ref: string): Action {
  const checked = checkRef(ref)
  return async ({ client }) => answer(await client().unpin(checked), ({ narHash, name }) => `unpinned ${narHash}${name === null ? '' : ` (${name})`}`)
}

export function gc({ free, dryRun }: { readonly free?: number, readonly dryRun?: boolean }): Action {
  const request = { ...(free === undefined ? {} : { freeBytes: free }), ...(dryRun === undefined ? {} : { dryRun }) }
  return async ({ client }) => answer(await client().gc(request), collectionView)
}

export function du(): Action {
  return async ({ client }) => answer(await client().usage(), usageView)
}

export function status(): Action {
  return async ({ client }) => answer(await client().status(), views.statusView)
}

export function peers(): Action {
  return async ({ client }) => answer(await client().peers(), views.peersView)
}

export function bans(): Action {
  return async ({ client }) => answer(await client().bans(), views.bansView)
}

export function unban(peerId: string): Action {
  if (!PEER_ID.test(peerId)) throw new NarvikError('invalid-argument', `Cannot lift the ban of ${peerId}: found no peer id, needed one, such as 12D3KooW…`, { hint: 'See: narvik peers --banned' })
  return async ({ client }) => answer(await client().unban(peerId), ban => `lifted the ban of ${ban.peerId} (${ban.reason})`)
}

export function transfers(): Action {
  return async ({ client }) => answer(await client().transfers(), views.transfersView)
}

export function metrics(): Action {
  return async ({ client }) => {
    const text = await client().metrics()
    return { json: { metrics: parseExposition(text) }, text: () => text.trimEnd() }
  }
}

/** Name, labels and value of each line that is no comment. */
function parseExposition(text: string): { readonly name: string, readonly labels: Record<string, string>, readonly value: number }[] {
  return [...text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name = '', labels = '', value]) => ({
    name, labels: Object.fromEntries(Array.from(labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g), ([, label = '', of = '']) => [label, of])), value: Number(value),
  }))
}

export function events(): Action {
  return ({ client }) => Promise.resolve({ answers: eachEvent(client()) })
}

async function * eachEvent(client: ControlClient): AsyncGenerator<Answer> {
  for await (const event of client.events()) yield answer(event, views.eventView)
}

function answer<T>(json: T, view: (json: T, paint: Paint) => string): Answer {
  return { json, text: paint => view(json, paint) }
}

function whole(closure: boolean | undefined): Whole {
  return closure === true ? { closure } : {}
}

function checkRef(text: string): string {
  return refText(parseRef(text))
}

function verifyFailure({ results }: VerifyReportJson): NarvikError | undefined {
  const failed = results.filter(({ verdict }) => verdict === 'fail')
  if (failed.length === 0) return undefined
  if (failed.every(result => isPolicyRefusal(result))) {
    return new NarvikError('refused', `Cannot accept ${failed.length} of ${plural(results.length, 'image')}: found too few trusted signatures, needed those of the policy`, { hint: `See: narvik show ${failed[0]?.narHash ?? 'REF'}` })
  }
  if (failed.every(({ stages }) => stages.every(({ stage, verdict }) => verdict !== 'fail' || stage === 'nix-store'))) {
    return new NarvikError('verification-failed', `Cannot vouch for ${failed.length} of ${plural(results.length, 'image')} in the Nix store: found that ${failed[0]?.reason ?? 'Nix says no'}, needed it intact`, {
      hint: 'Have Nix repair it: nix-store --repair-path PATH; or delete it there, and install it again',
    })
  }
  const [first] = failed
  const ref = first?.name ?? first?.narHash ?? 'REF'
  if (failed.length > 1) {
    return new NarvikError('verification-failed', `Cannot vouch for ${failed.length} of ${plural(results.length, 'image')}: found what the reasons above say, needed the trees that were proven`, {
      hint: `Bring what is wrong from other hosts, one image after the other: narvik verify --repair ${ref}; the evidence: narvik show ${ref}`,
    })
  }
  return new NarvikError('verification-failed', `Cannot vouch for ${ref}${results.length > 1 ? `, 1 of ${results.length} images` : ''}: ${foundOf(first?.reason ?? 'it failed')}`, {
    hint: `Bring what is wrong from other hosts: narvik verify --repair ${ref}; the evidence: narvik show ${ref}`,
  })
}

/** Some reasons say already what was needed. */
function foundOf(reason: string): string {
  return reason.includes(', needed ') ? lowerFirst(reason) : `found that ${lowerFirst(reason)}; needed the tree that was proven`
}

function lowerFirst(text: string): string {
  return /^[A-Z][a-z]* /.test(text) && !text.startsWith('Nix') ? text.charAt(0).toLowerCase() + text.slice(1) : text
}
