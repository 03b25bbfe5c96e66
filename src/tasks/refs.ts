import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { publisherName } from '../image/name-record.ts'
import { refText, type Ref } from '../image/ref.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow } from '../store/image-row.ts'

type Lookup = Pick<Catalog, 'get' | 'getByName' | 'getByStorePath' | 'registrations' | 'names'>

/** The catalog's image for a reference; by its store path only where that is more than a peer's claim. */
export function lookUp(catalog: Lookup, ref: Ref): ImageRow | undefined {
  switch (ref.kind) {
    case 'nar-hash': return catalog.get(ref.narHash)
    case 'store-path': {
      const row = catalog.getByStorePath(ref.storePath)
      const known = row === undefined ? [] : catalog.registrations(row.narHash)
      return known.some(({ storePath, vouchedBy }) => storePath === ref.storePath && vouchedBy !== null) ? row : undefined
    }
    case 'name': return ref.publisher === undefined ? catalog.getByName(ref.name) : publishedBy(catalog, ref.publisher, ref.name)
  }
}

/** What a publisher's name stood for when this host last heard of it. */
function publishedBy(catalog: Lookup, publisher: string, name: string): ImageRow | undefined {
  const known = catalog.names.list().findLast(({ record }) => record.name === name && publisherName(record.publisher) === publisher)
  return known === undefined ? undefined : catalog.get(known.record.narHash)
}

/**
 * As `lookUp`.
 * @throws NarvikError `not-found` where the catalog has no such image.
 */
export function requireImage(catalog: Lookup, ref: Ref): ImageRow {
  const row = lookUp(catalog, ref)
  if (row !== undefined) return row
  throw new NarvikError('not-found', `Cannot find ${refText(ref)}: found no such image in the catalog, needed the NAR hash, store path or name of one`, {
    hint: 'See `narvik list` for what this host has',
  })
}

/**
 * Checks that a name is free, or `owner`'s already.
 * @throws NarvikError `name-taken`.
 */
export function checkName(catalog: Lookup, name: string, owner?: NarHash): void {
  const holder = catalog.getByName(name)
  if (holder === undefined || owner?.equals(holder.narHash) === true) return
  throw new NarvikError('name-taken', `Cannot use the name ${name}: found it on ${holder.narHash.toSri()}, needed a free one`, {
    hint: 'Choose another name, or remove the image that has it with `narvik rm`',
  })
}
