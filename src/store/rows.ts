import { NarHash } from '../image/nar-hash.ts'
import { REF_KINDS } from '../image/ref.ts'
import { EVENTS, STATES } from '../image/states.ts'
import type { Evidence } from '../image/verdict.ts'
import { VOUCHERS } from '../image/voucher.ts'
import { corruptValue } from './database.ts'
import { PLACES, SOURCES } from './image-row.ts'
import type { ImageRow, JournalEntry, Registration } from './image-row.ts'

/** A row of `images` with its references and signatures, as SQLite gives it. */
export interface StoredImage {
  nar_hash: Uint8Array
  nar_size: number | null
  name: string | null
  store_path: string | null
  deriver: string | null
  ca: string | null
  manifest_digest: string | null
  state: string
  source: string
  place: string
  asked_by: string
  private: number
  publisher: string | null
  vouched_by: string | null
  newest_change: number | null
  reason: string | null
  note: string | null
  created_at: number
  verified_at: number | null
  pinned_at: number | null
  used_at: number
  proven_at: number | null
  disk_bytes: number | null
  priority: number
  references_json: string
  signatures_json: string
}

/** A row of `other_store_paths`, as SQLite gives it. */
export interface StoredRegistration {
  store_path: string
  deriver: string | null
  ca: string | null
  references_json: string
  signatures_json: string
  vouched_by: string | null
}

/** A row of `journal`, as SQLite gives it. */
export interface StoredEntry {
  at: number
  from_state: string | null
  event: string
  to_state: string | null
  reason: string
  evidence: string | null
}

/** Completed by a WHERE; one query for an image with all that belongs to it. */
export const SELECT_IMAGES = `
  SELECT images.*,
    (SELECT json_group_array(reference ORDER BY reference) FROM image_references AS r WHERE r.nar_hash = images.nar_hash) AS references_json,
    (SELECT json_group_array(signature ORDER BY position) FROM image_signatures AS s WHERE s.nar_hash = images.nar_hash) AS signatures_json
  FROM images`

const JOURNAL_EVENTS = [...EVENTS, 'create', 'remove'] as const

/** @throws NarvikError `corrupt-catalog` where a value is none that Narvik writes. */
export function toImageRow(stored: StoredImage): ImageRow {
  try {
    return {
      narHash: NarHash.fromBytes(stored.nar_hash),
      narSize: stored.nar_size,
      name: stored.name,
      storePath: stored.store_path,
      references: texts(stored.references_json),
      deriver: stored.deriver,
      ca: stored.ca,
      signatures: texts(stored.signatures_json),
      manifestDigest: stored.manifest_digest,
      state: oneOf(STATES, stored.state),
      source: oneOf(SOURCES, stored.source),
      place: oneOf(PLACES, stored.place),
      askedBy: oneOf(REF_KINDS, stored.asked_by),
      isPrivate: stored.private === 1,
      publisher: stored.publisher,
      vouchedBy: stored.vouched_by === null ? null : oneOf(VOUCHERS, stored.vouched_by),
      newestChange: stored.newest_change,
      reason: stored.reason,
      note: stored.note,
      createdAt: new Date(stored.created_at),
      verifiedAt: toDate(stored.verified_at),
      pinnedAt: toDate(stored.pinned_at),
      usedAt: new Date(stored.used_at),
      provenAt: toDate(stored.proven_at),
      diskBytes: stored.disk_bytes,
      priority: stored.priority,
    }
  } catch (error) {
    throw corruptValue('an image that makes no sense', error)
  }
}

/** @throws NarvikError `corrupt-catalog` where a value is none that Narvik writes. */
export function toJournalEntry(stored: StoredEntry): JournalEntry {
  try {
    return {
      at: new Date(stored.at),
      from: stored.from_state === null ? null : oneOf(STATES, stored.from_state),
      to: stored.to_state === null ? null : oneOf(STATES, stored.to_state),
      event: oneOf(JOURNAL_EVENTS, stored.event),
      reason: stored.reason,
      evidence: stored.evidence === null ? null : JSON.parse(stored.evidence) as Evidence,
    }
  } catch (error) {
    throw corruptValue('a journal entry that makes no sense', error)
  }
}

/** @throws NarvikError `corrupt-catalog` where a value is none that Narvik writes. */
export function toRegistration({ store_path: storePath, deriver, ca, references_json: references, signatures_json: signatures, vouched_by: voucher }: StoredRegistration): Registration {
  try {
    return { storePath, deriver, ca, references: texts(references), signatures: texts(signatures), vouchedBy: voucher === null ? null : oneOf(VOUCHERS, voucher) }
  } catch (error) {
    throw corruptValue('a store path that makes no sense', error)
  }
}

function oneOf<const Value extends string>(values: readonly Value[], text: string): Value {
  const value = values.find(candidate => candidate === text)
  if (value === undefined) throw new TypeError(`${JSON.stringify(text)} is none of ${values.join(', ')}`)
  return value
}

function toDate(milliseconds: number | null): Date | null {
  return milliseconds === null ? null : new Date(milliseconds)
}

function texts(json: string): string[] {
  const values: unknown = JSON.parse(json)
  if (!Array.isArray(values)) throw new TypeError('not a list')
  return values.map(String)
}
