import SqliteDatabase from 'better-sqlite3'
import type { KnownPath } from './known-paths.ts'

/** A row of Nix's `ValidPaths` (nix: src/libstore/schema.sql, schema 10), with the paths that it refers to. */
interface Row {
  hash: string
  registrationTime: number
  deriver: string | null
  narSize: number | null
  ultimate: number | null
  sigs: string | null
  ca: string | null
  references: string
}

const SELECT = `
  SELECT hash, registrationTime, deriver, narSize, ultimate, sigs, ca,
    (SELECT json_group_array(target.path) FROM Refs JOIN ValidPaths AS target ON target.id = Refs.reference WHERE Refs.referrer = ValidPaths.id) AS "references"
  FROM ValidPaths WHERE path = ?`

/**
 * Those of the paths that Nix's database still has as they are remembered: registered at the same time, with the same hash, references,
 * deriver, signatures and content address. It is only compared here, never taken for an answer: where the database can't be read, is being
 * written to, or has other tables than is known of, the answer is nothing, and Nix is to be asked.
 */
export function stillRegistered(file: string, known: readonly KnownPath[]): Set<string> {
  const same = new Set<string>()
  if (known.length === 0) return same
  let database: SqliteDatabase.Database | undefined
  try {
    // Opened each time: for as long as anybody has it open, Nix can't tidy up its log.
    database = new SqliteDatabase(file, { readonly: true, fileMustExist: true, timeout: 0 })
    const select = database.prepare<[string], Row>(SELECT)
    for (const each of known) if (isSame(select.get(each.path), each)) same.add(each.path)
    return same
  } catch {
    return new Set()
  } finally {
    database?.close()
  }
}

function isSame(row: Row | undefined, known: KnownPath): boolean {
  return row !== undefined
    && row.registrationTime === known.registrationTime
    && row.hash === `sha256:${known.narHash.toHex()}`
    && row.narSize === known.narSize
    && (row.ultimate === 1) === known.ultimate
    && (row.deriver ?? '') === (known.deriver ?? '')
    && (row.ca ?? '') === (known.ca ?? '')
    && isSameSet((row.sigs ?? '').split(' '), known.signatures)
    && isSameSet(JSON.parse(row.references) as string[], known.references)
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return one.toSorted().join('\n') === other.toSorted().join('\n')
}
