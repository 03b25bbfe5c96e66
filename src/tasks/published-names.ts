import { isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { type NameRecord, publisherId, publisherName } from '../image/name-record.ts'
import { formatPublicKey } from '../nix/signature.ts'
import type { PublishedName } from '../p2p/names.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'

/** An image that a publisher whom this host trusts has given a name. */
export interface Published {
  readonly narHash: NarHash
  readonly name: string
  /** The public key in hex. */
  readonly publisher: string
}

/**
 * Publishes a record that was signed elsewhere: this host never sees the key. The image must be here, and the record is kept in the DHT until it expires.
 * @throws NarvikError `refused` where the record is forged, expired, older than one that was seen, or the image is private; `conflict` where the image is not verified here.
 */
export async function publishName({ catalog, node, logger }: TaskContext, value: Uint8Array): Promise<NameRecord> {
  const record = await node.names.accept(value)
  const row = catalog.get(record.narHash)
  if (row?.state !== 'verified') {
    throw new NarvikError('conflict', `Cannot publish ${record.name}: found no verified ${record.narHash.toSri()} on this host, needed it`, { hint: 'Import or fetch it first' })
  }
  if (row.isPrivate) throw new NarvikError('refused', `Cannot publish ${record.name}: found ${record.narHash.toSri()} private, needed an image that is served`, { hint: `Make it public first: narvik private --off ${record.narHash.toSri()}` })
  catalog.names.accept({ record, value, own: true })
  await node.names.keep({ record, value })
  logger.info('published a name', { name: record.name, publisher: record.publisher, narHash: record.narHash.toSri(), seq: record.seq })
  return record
}

/** Keeps in the DHT what this host has published, after a restart as before. */
export function keepNames({ catalog, node, logger }: Pick<TaskContext, 'catalog' | 'node' | 'logger'>): void {
  for (const { record, value, own } of catalog.names.list()) {
    if (!own) continue
    node.names.accept(value).then(() => node.names.keep({ record, value })).catch((error: unknown) => {
      logger.warn('cannot keep a published name', { name: record.name, reason: messageOf(error) })
    })
  }
}

/**
 * What the trusted publishers say that a name stands for, by the highest record that this host has ever seen; undefined where none of them says anything.
 * @throws NarvikError `conflict` where they disagree; `refused` where a publisher is asked for by name who is not trusted, or nothing but old records is found.
 */
export async function findPublished(context: TaskContext, { name, publisher }: { readonly name: string, readonly publisher?: string | undefined }, signal?: AbortSignal): Promise<Published | undefined> {
  const all = context.settings.trust.keys.map(formatPublicKey)
  const keys = all.filter(key => publisher === undefined || publisherName(key) === publisher)
  if (publisher !== undefined && keys.length === 0) {
    throw new NarvikError('refused', `Cannot take ${publisher}/${name}: found no trusted key of the name ${publisher}, needed one`, { hint: 'List the public key of the publisher in trust.keys' })
  }
  const ids = [...new Set(keys.map(publisherId))]
  const answers = await Promise.all(ids.map(id => newestOf(context, id, name, signal)))
  const live = answers.filter((answer): answer is NameRecord => answer !== undefined && !(answer instanceof NarvikError))
  const [first, ...others] = live
  if (first === undefined) {
    const refusal = answers.find(answer => answer instanceof NarvikError)
    if (refusal !== undefined) throw refusal
    return undefined
  }
  if (others.some(other => !other.narHash.equals(first.narHash))) throw ambiguous(name, live)
  return { narHash: first.narHash, name, publisher: publisherId(first.publisher) }
}

/** The newest record of one publisher: of those in the fleet, and of those that were seen before; a refusal where there are only ones that may not be taken. */
async function newestOf({ catalog, node, logger }: TaskContext, publisher: string, name: string, signal: AbortSignal | undefined): Promise<NameRecord | NarvikError | undefined> {
  const found = await node.names.find(publisher, name, { signal })
  const rollback = found === undefined ? undefined : remember(catalog, found)
  if (rollback !== undefined) logger.warn('refused a published name', { name, publisher, reason: rollback.message })
  const newest = catalog.names.get(publisher, name)?.record
  if (newest === undefined || newest.expires > Date.now()) return newest
  return rollback ?? expired(newest)
}

/** What is wrong with a name that stands for nothing here and that this host had never heard of while it was valid: that what the fleet has of it is a trusted publisher's, and expired. */
export function expiredElsewhere({ node, settings }: Pick<TaskContext, 'node' | 'settings'>, { name, publisher }: { readonly name: string, readonly publisher?: string | undefined }): NarvikError | undefined {
  const trusted = trustedIds(settings)
  const [newest] = node.names.refusals()
    .flatMap(({ expired: record }) => record !== undefined && record.name === name && (publisher === undefined || publisher === publisherName(record.publisher)) ? [record] : [])
    .filter(record => trusted.has(publisherId(record.publisher)) && record.expires <= Date.now())
    .sort((one, other) => other.expires - one.expires)
  return newest === undefined ? undefined : expired(newest)
}

/** The publishers whose keys this host trusts, each by its public key in hex. */
export function trustedIds({ trust }: TaskContext['settings']): ReadonlySet<string> {
  return new Set(trust.keys.map(key => publisherId(formatPublicKey(key))))
}

function expired({ name, publisher, expires }: NameRecord): NarvikError {
  return new NarvikError('refused', `Cannot take the name ${name}: found that what ${publisher} published expired on ${new Date(expires).toISOString()}, needed a live record`, {
    hint: 'The publisher has to publish it again',
  })
}

function remember(catalog: TaskContext['catalog'], { record, value }: PublishedName): NarvikError | undefined {
  try {
    catalog.names.accept({ record, value, own: false })
    return undefined
  } catch (error) {
    if (isNarvikError(error, 'refused')) return error
    throw error
  }
}

function ambiguous(name: string, records: readonly NameRecord[]): NarvikError {
  const said = records.map(record => `${publisherName(record.publisher)}/${name} is ${record.narHash.toSri()}`).join(', ')
  return new NarvikError('conflict', `Cannot take the name ${name}: found that ${said}, needed one publisher of the name`, {
    hint: `Say whose: narvik fetch ${publisherName(records[0]?.publisher ?? '')}/${name}`,
  })
}

/** Puts down whose word an image rests on, where it is asked for by a published name. */
export function notePublisher({ catalog }: Pick<TaskContext, 'catalog'>, row: ImageRow, published: Published | undefined): ImageRow {
  return published === undefined || row.publisher === published.publisher ? row : catalog.setPublisher(row.narHash, published.publisher)
}
