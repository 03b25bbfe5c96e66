import { NarvikError } from '../errors.ts'
import { imageName, storePathText } from './metadata.ts'
import { NarHash } from './nar-hash.ts'

/** What a person or a script names an image by. */
export type Ref =
  | { readonly kind: 'nar-hash', readonly narHash: NarHash }
  | { readonly kind: 'store-path', readonly storePath: string }
  | { readonly kind: 'name', readonly name: string, /** Whose name it is, where that is said: what the publisher's key is called. */ readonly publisher?: string }

export const REF_KINDS = ['nar-hash', 'store-path', 'name'] as const satisfies readonly Ref['kind'][]
export type RefKind = (typeof REF_KINDS)[number]

/** Characters of a reference: those of the longest store path that is accepted. */
export const MAX_REF_CHARS = 1300

/**
 * Reads a reference: a NAR hash in any of its text forms, a full store path, or a name, alone or with its publisher before it
 * (`publisher/name`), tried in this order.
 * @throws NarvikError `invalid-argument` where the text is none of them.
 */
export function parseRef(text: string): Ref {
  const ref = tryParseRef(text)
  if (ref !== undefined) return ref
  const shown = JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
  throw new NarvikError('invalid-argument', `Cannot read a reference: found ${shown}, needed a NAR hash, a store path or a name`)
}

/** As `parseRef`, but undefined where the text is no reference. */
export function tryParseRef(text: string): Ref | undefined {
  if (text.length > MAX_REF_CHARS) return undefined
  const narHash = NarHash.tryParse(text)
  if (narHash !== undefined) return { kind: 'nar-hash', narHash }
  if (storePathText.safeParse(text).success) return { kind: 'store-path', storePath: text }
  const slash = text.lastIndexOf('/')
  const name = text.slice(slash + 1)
  if (!imageName.safeParse(name).success) return undefined
  if (slash < 0) return { kind: 'name', name }
  const publisher = text.slice(0, slash)
  // As a key may be called, but nothing that reads as a path.
  return !publisher.startsWith('sha256-') && /^[A-Za-z0-9][\x21-\x2e\x30-\x39\x3b-\x7e]{0,254}$/.test(publisher) ? { kind: 'name', name, publisher } : undefined
}

/** The text that `parseRef` reads back as the same reference. */
export function refText(ref: Ref): string {
  switch (ref.kind) {
    case 'nar-hash': return ref.narHash.toSri()
    case 'store-path': return ref.storePath
    case 'name': return ref.publisher === undefined ? ref.name : `${ref.publisher}/${ref.name}`
  }
}
