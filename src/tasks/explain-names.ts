import type { NarHash } from '../image/nar-hash.ts'
import { nameOfKey, type NameRecord, publisherId, publisherName } from '../image/name-record.ts'
import type { KeptName } from '../store/published-names.ts'
import type { TaskContext } from './context.ts'
import { presentName } from './present.ts'
import { trustedIds } from './published-names.ts'

type Parts = Pick<TaskContext, 'catalog' | 'node' | 'settings'>

/** Which names are asked about: those of an image, those that are spelt so, or both. */
export interface NameQuestion {
  readonly narHash?: NarHash | undefined
  readonly name?: string | undefined
  /** What the publisher's key is called. */
  readonly publisher?: string | undefined
}

/** Tells of each record of a name that this host has seen who published it and when, whether it is accepted, and why not. */
export function explainNames(parts: Parts, question: NameQuestion) {
  return knownNames(parts)
    .filter(({ record }) => isMeant(record, question))
    .map(kept => ({ ...presentName(kept, parts.settings.trust.keys), ...judge(parts, kept.record) }))
}

/** Records of the name that were refused since this run of the daemon began, with what was wrong with them; the last one of each publisher. */
export function refusedNames({ node }: Pick<Parts, 'node'>, { name }: NameQuestion) {
  return node.names.refusals().flatMap(({ key, at, reason }) => {
    const meant = nameOfKey(key)
    return meant === undefined || meant.name !== name ? [] : [{ name: meant.name, publisherKey: meant.publisher, at: new Date(at).toISOString(), reason }]
  })
}

/** What this host has accepted for itself, and what it stores for the fleet, of publishers whom it trusts or not. */
function knownNames({ catalog, node }: Parts): Pick<KeptName, 'record' | 'own'>[] {
  const kept = catalog.names.list()
  const ids = new Map(kept.map(({ record }) => [idOf(record), record]))
  const stored = node.names.known().filter(({ record }) => ids.get(idOf(record))?.seq !== record.seq)
  return [...kept, ...stored.map(({ record }) => ({ record, own: false }))]
}

function isMeant(record: NameRecord, { narHash, name, publisher }: NameQuestion): boolean {
  if (narHash?.equals(record.narHash) === true) return true
  return record.name === name && (publisher === undefined || publisher === publisherName(record.publisher))
}

function judge({ catalog, node, settings }: Parts, record: NameRecord): { accepted: boolean, verdict: string } {
  const refuse = (verdict: string): { accepted: boolean, verdict: string } => ({ accepted: false, verdict })
  const isTrusted = trustedIds(settings).has(publisherId(record.publisher))
  if (!isTrusted) return refuse('no key of its publisher is in trust.keys')
  if (record.expires <= Date.now()) return refuse(`it expired on ${new Date(record.expires).toISOString()}: ${publisherName(record.publisher)} has to publish it again`)
  const newest = catalog.names.get(publisherId(record.publisher), record.name)?.record
  if (newest !== undefined && newest.seq > record.seq) return refuse(`a newer one of its publisher was seen, number ${newest.seq}`)
  const rival = knownNames({ catalog, node, settings }).find(({ record: other }) => other.name === record.name && !other.narHash.equals(record.narHash)
    && trustedIds(settings).has(publisherId(other.publisher)) && other.expires > Date.now() && publisherId(other.publisher) !== publisherId(record.publisher))
  if (rival !== undefined) return refuse(`${publisherName(rival.record.publisher)} says that it is ${rival.record.narHash.toSri()}: ask for ${publisherName(record.publisher)}/${record.name}`)
  return { accepted: true, verdict: whatOf({ catalog }, record) }
}

function whatOf({ catalog }: Pick<Parts, 'catalog'>, { name, narHash, publisher }: NameRecord): string {
  const row = catalog.get(narHash)
  if (row === undefined) return `its image is not here: narvik fetch ${publisherName(publisher)}/${name}`
  if (row.state !== 'verified') return `its image is ${row.state}${row.reason === null ? '' : `: ${row.reason}`}`
  const holder = catalog.getByName(name)
  return holder === undefined || holder.narHash.equals(narHash) ? 'its image is verified here' : 'its image is verified here, under another name: this host has given the name to an image itself'
}

function idOf({ publisher, name }: NameRecord): string {
  return `${publisherId(publisher)}/${name}`
}
