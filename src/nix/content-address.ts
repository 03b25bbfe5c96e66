import { NarvikError } from '../errors.ts'
import { formatHash, prefixedNix32, tryParseHash, type NixHash } from './hash.ts'
import { quote } from './quote.ts'
import { fixedStorePath, sourceStorePath, textStorePath } from './store-path.ts'

/** How the contents of a path become the hash in its content address; the names are those of Nix's JSON. */
export type ContentAddressMethod = 'text' | 'flat' | 'nar' | 'git'

export interface ContentAddress {
  readonly method: ContentAddressMethod
  readonly hash: NixHash
}

const PREFIXES: Readonly<Record<ContentAddressMethod, string>> = { text: 'text:', nar: 'fixed:r:', git: 'fixed:git:', flat: 'fixed:' }

/**
 * Reads `text:sha256:…`, `fixed:<algorithm>:…`, `fixed:r:…` or `fixed:git:…`, with the hash in any base.
 * @throws NarvikError `invalid-argument`.
 */
export function parseContentAddress(text: string): ContentAddress {
  // `fixed:` begins the others, and stands last in the table.
  for (const method of ['text', 'nar', 'git', 'flat'] as const) {
    if (!text.startsWith(PREFIXES[method])) continue
    const rest = text.slice(PREFIXES[method].length)
    const hash = rest.includes(':') ? tryParseHash(rest) : undefined
    if (hash !== undefined && (method !== 'text' || hash.algorithm === 'sha256')) return { method, hash }
    break
  }
  throw new NarvikError('invalid-argument', `Cannot read a content address: found ${quote(text)}, needed text:sha256:…, fixed:<algorithm>:…, fixed:r:<algorithm>:… or fixed:git:<algorithm>:…`)
}

/** As Nix writes it: the hash in nix32. */
export function formatContentAddress({ method, hash }: ContentAddress): string {
  return `${PREFIXES[method]}${prefixedNix32(hash)}`
}

/** The structured form of Nix 2.33's `--json-format 2` and later. */
export function contentAddressToJson({ method, hash }: ContentAddress): { method: string, hash: string } {
  return { method, hash: formatHash(hash, 'sri') }
}

export interface AddressedPath {
  readonly name: string
  readonly ca: ContentAddress
  /** Full paths, without the path itself. */
  readonly references?: readonly string[]
  readonly selfReference?: boolean
  readonly storeDir?: string
}

/**
 * The store path that belongs to a content address: where it equals the path that is claimed, the claim needs no signature,
 * provided that the contents have the hash.
 * @throws NarvikError `invalid-argument` where the method allows no such references.
 */
export function storePathOf({ name, ca, references = [], selfReference = false, storeDir }: AddressedPath): string {
  const where = storeDir === undefined ? { name } : { name, storeDir }
  if (ca.method === 'nar' && ca.hash.algorithm === 'sha256') {
    return sourceStorePath({ ...where, narSha256: ca.hash.bytes, references, selfReference })
  }
  if (selfReference || (ca.method !== 'text' && references.length > 0)) {
    throw new NarvikError('invalid-argument', `Cannot compute a store path from ${formatContentAddress(ca)}: found ${references.length + (selfReference ? 1 : 0)} references, needed none`)
  }
  if (ca.method === 'text') {
    if (ca.hash.algorithm !== 'sha256') throw new NarvikError('invalid-argument', `Cannot compute a store path from ${formatContentAddress(ca)}: found ${ca.hash.algorithm}, needed sha256`)
    return textStorePath({ ...where, sha256: ca.hash.bytes, references })
  }
  return fixedStorePath({ ...where, method: ca.method, hash: ca.hash })
}
