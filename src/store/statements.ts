import type { Statement } from 'better-sqlite3'
import type { Database } from './database.ts'
import { SELECT_IMAGES } from './rows.ts'
import type { StoredEntry, StoredImage, StoredRegistration } from './rows.ts'

type Key = [narHash: Uint8Array]

/** Every statement of the catalog, prepared once. */
export interface Statements {
  readonly byHash: Statement<Key, StoredImage>
  readonly byName: Statement<[string], StoredImage>
  readonly byStorePath: Statement<[{ path: string }], StoredImage>
  readonly otherPaths: Statement<Key, StoredRegistration>
  readonly addOtherPath: Statement<[object]>
  readonly dropOtherPath: Statement<[object]>
  readonly register: Statement<[object]>
  readonly byState: Statement<[string], StoredImage>
  readonly all: Statement<[], StoredImage>
  readonly counts: Statement<[], { readonly state: string, readonly images: number }>
  readonly insert: Statement<[object]>
  readonly describe: Statement<[object]>
  readonly setName: Statement<[object]>
  readonly setState: Statement<[object]>
  readonly setAskedBy: Statement<[object]>
  readonly setPrivate: Statement<[object]>
  readonly setNote: Statement<[object]>
  readonly setPublisher: Statement<[object]>
  readonly setVouchedBy: Statement<[object]>
  readonly setManifestDigest: Statement<[object]>
  readonly setNewestChange: Statement<[object]>
  readonly setOrigin: Statement<[object]>
  readonly remove: Statement<Key>
  readonly dropReferences: Statement<Key>
  readonly addReference: Statement<[Uint8Array, string]>
  readonly dropSignatures: Statement<Key>
  readonly addSignature: Statement<[Uint8Array, number, string]>
  readonly manifest: Statement<Key, Uint8Array>
  readonly dropManifest: Statement<Key>
  readonly addManifest: Statement<[Uint8Array, Uint8Array]>
  readonly append: Statement<[object]>
  readonly journal: Statement<Key, StoredEntry>
}

export function prepareStatements(database: Database): Statements {
  return {
    byHash: database.prepare(`${SELECT_IMAGES} WHERE nar_hash = ?`),
    byName: database.prepare(`${SELECT_IMAGES} WHERE name = ?`),
    byStorePath: database.prepare(`${SELECT_IMAGES}
      WHERE nar_hash IN (SELECT nar_hash FROM images WHERE store_path = @path UNION SELECT nar_hash FROM other_store_paths WHERE store_path = @path)
      ORDER BY
        (vouched_by IS NOT NULL AND store_path IS @path)
          OR EXISTS (SELECT 1 FROM other_store_paths AS other WHERE other.nar_hash = images.nar_hash AND other.store_path = @path AND other.vouched_by IS NOT NULL) DESC,
        state = 'verified' DESC, created_at DESC LIMIT 1`),
    otherPaths: database.prepare('SELECT store_path, deriver, ca, references_json, signatures_json, vouched_by FROM other_store_paths WHERE nar_hash = ? ORDER BY store_path'),
    addOtherPath: database.prepare(`
      INSERT OR REPLACE INTO other_store_paths (store_path, nar_hash, deriver, ca, references_json, signatures_json, vouched_by)
      VALUES (@storePath, @narHash, @deriver, @ca, @references, @signatures, @vouchedBy)`),
    dropOtherPath: database.prepare('DELETE FROM other_store_paths WHERE nar_hash = @narHash AND store_path = @storePath'),
    register: database.prepare('UPDATE images SET store_path = @storePath, deriver = @deriver, ca = @ca, vouched_by = @vouchedBy WHERE nar_hash = @narHash'),
    byState: database.prepare(`${SELECT_IMAGES} WHERE state = ? ORDER BY created_at, nar_hash`),
    counts: database.prepare('SELECT state, count(*) AS images FROM images GROUP BY state'),
    all: database.prepare(`${SELECT_IMAGES} ORDER BY created_at, nar_hash`),
    insert: database.prepare(`
      INSERT INTO images (nar_hash, name, state, source, place, asked_by, reason, note, created_at, used_at)
      VALUES (@narHash, @name, 'wanted', @source, @place, @askedBy, @reason, @note, @at, @at)`),
    describe: database.prepare(`
      UPDATE images SET nar_size = @narSize, store_path = @storePath, deriver = @deriver, ca = @ca,
        manifest_digest = @manifestDigest, note = @note, vouched_by = @vouchedBy
      WHERE nar_hash = @narHash`),
    setName: database.prepare('UPDATE images SET name = @name WHERE nar_hash = @narHash'),
    setState: database.prepare(`
      UPDATE images SET state = @state, reason = @reason, verified_at = @verifiedAt,
        proven_at = @verifiedAt, used_at = coalesce(@verifiedAt, used_at), disk_bytes = NULL
      WHERE nar_hash = @narHash`),
    setNote: database.prepare('UPDATE images SET note = @note WHERE nar_hash = @narHash'),
    setPrivate: database.prepare('UPDATE images SET private = @isPrivate WHERE nar_hash = @narHash'),
    setPublisher: database.prepare('UPDATE images SET publisher = @publisher WHERE nar_hash = @narHash'),
    setAskedBy: database.prepare('UPDATE images SET asked_by = @askedBy WHERE nar_hash = @narHash'),
    setVouchedBy: database.prepare('UPDATE images SET vouched_by = @vouchedBy WHERE nar_hash = @narHash'),
    setManifestDigest: database.prepare('UPDATE images SET manifest_digest = @manifestDigest WHERE nar_hash = @narHash'),
    setNewestChange: database.prepare('UPDATE images SET newest_change = @newestChange WHERE nar_hash = @narHash'),
    setOrigin: database.prepare('UPDATE images SET source = @source, place = @place, vouched_by = NULL, newest_change = NULL WHERE nar_hash = @narHash'),
    remove: database.prepare('DELETE FROM images WHERE nar_hash = ?'),
    dropReferences: database.prepare('DELETE FROM image_references WHERE nar_hash = ?'),
    addReference: database.prepare('INSERT INTO image_references (nar_hash, reference) VALUES (?, ?)'),
    dropSignatures: database.prepare('DELETE FROM image_signatures WHERE nar_hash = ?'),
    addSignature: database.prepare('INSERT INTO image_signatures (nar_hash, position, signature) VALUES (?, ?, ?)'),
    manifest: database.prepare<Key, Uint8Array>('SELECT bytes FROM manifests WHERE nar_hash = ?').pluck(),
    dropManifest: database.prepare('DELETE FROM manifests WHERE nar_hash = ?'),
    addManifest: database.prepare('INSERT INTO manifests (nar_hash, bytes) VALUES (?, ?)'),
    append: database.prepare(`
      INSERT INTO journal (nar_hash, at, from_state, event, to_state, reason, evidence)
      VALUES (@narHash, @at, @from, @event, @to, @reason, @evidence)`),
    journal: database.prepare('SELECT at, from_state, event, to_state, reason, evidence FROM journal WHERE nar_hash = ? ORDER BY id'),
  }
}
