import { formatBytes } from '../byte-size.ts'
import type { ImageJson } from '../control/api.ts'
import { harmless } from './format.ts'
import type { Action } from './outcome.ts'

/** Milliseconds that somebody who presses Tab waits for the daemon. */
const PATIENCE_MS = 2000

interface Reference {
  readonly ref: string
  readonly about: string
}

/**
 * The references of images that begin with a word, for a shell that completes it: a line each, with a tab before what it is. An image goes by its
 * name where it has one, unless the word says otherwise. Never fails: where no daemon answers soon, there are none.
 */
export function listReferences(word: string): Action {
  return async ({ client }) => {
    const references = await findReferences(client, word)
    return { json: { refs: references.map(({ ref }) => ref) }, text: () => references.map(({ ref, about }) => `${ref}\t${about}`).join('\n') }
  }
}

async function findReferences(client: Parameters<Action>[0]['client'], word: string): Promise<Reference[]> {
  const signal = AbortSignal.timeout(PATIENCE_MS)
  try {
    const asked = client()
    const [images, names] = await Promise.all([asked.list({ signal }), asked.names({ signal })])
    const published = names.filter(({ trusted, name }) => trusted && !images.some(image => image.name === name)).map(({ name }) => ({ ref: name, about: 'published' }))
    return [...images.flatMap(image => referencesOf(image, word)), ...published].filter(({ ref }) => ref.startsWith(word))
  } catch {
    return []
  }
}

function referencesOf({ name, narHash, storePath, state, narSize }: ImageJson, word: string): Reference[] {
  const about = harmless(narSize === null ? state : `${state}, ${formatBytes(narSize)}`)
  const refs = word === '' ? [name ?? narHash] : [name, narHash, storePath]
  return refs.filter(ref => ref !== null).map(ref => ({ ref, about }))
}
