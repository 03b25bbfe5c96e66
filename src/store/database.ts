import { closeSync, openSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import SqliteDatabase from 'better-sqlite3'
import { DISK_HINT, fromSystemError, messageOf, NarvikError } from '../errors.ts'
import { CATALOG_BUSY_TIMEOUT_MS, CATALOG_WAL_BYTES } from '../limits.ts'

export type Database = SqliteDatabase.Database

/** `NRVK`: tells Narvik's catalog from another program's database. */
const APPLICATION_ID = 0x4e52564b
const MIGRATIONS = fileURLToPath(new URL('./migrations/', import.meta.url))
/** SQLite's word for a database without a file. */
const IN_MEMORY = ':memory:'
const CORRUPT_HINT = 'Move catalog.db, catalog.db-wal and catalog.db-shm away together and start again: the trees under images/ are then taken up and proven anew'

/**
 * Opens the catalog's database, makes it where there is none and brings an older one up to date. One that is refused is left as it was,
 * to the byte, for whoever wants to save something of it.
 * @throws NarvikError `corrupt-catalog` where it is damaged, another program's, or of a newer Narvik.
 */
export function openDatabase(file: string): Database {
  try {
    if (file !== IN_MEMORY) makeOrInspect(file)
    return openAndMigrate(file)
  } catch (error) {
    throw fromSqliteError(error, `open the catalog ${file}`)
  }
}

/** Turns an error of SQLite into a NarvikError; `action` completes `Cannot …`. */
export function fromSqliteError(error: unknown, action: string): NarvikError {
  if (!(error instanceof SqliteDatabase.SqliteError)) return fromSystemError(error, action)
  const found = `Cannot ${action}: found ${error.message} (${error.code})`
  const [, kind = ''] = error.code.split('_')
  if (kind === 'CORRUPT' || kind === 'NOTADB') {
    return new NarvikError('corrupt-catalog', `${found}, needed an intact catalog`, { cause: error, hint: CORRUPT_HINT })
  }
  if (kind === 'FULL') {
    return new NarvikError('disk-full', `${found}, needed room on the disk`, { cause: error, hint: 'Make room on the disk and try again' })
  }
  if (kind === 'BUSY' || kind === 'LOCKED') {
    return new NarvikError('in-use', `${found}, needed no other writer`, { cause: error, hint: 'End the other program that has the catalog open' })
  }
  if (kind === 'READONLY' || kind === 'CANTOPEN' || kind === 'PERM') {
    return new NarvikError('unreadable', `${found}, needed a file that the daemon may write`, { cause: error })
  }
  if (kind === 'IOERR') return new NarvikError('io-error', `${found}, needed it to succeed`, { cause: error, hint: DISK_HINT })
  return new NarvikError('internal', `${found}, needed it to succeed`, { cause: error })
}

function makeOrInspect(file: string): void {
  if (isNew(file)) makeNew(file)
  else inspect(file)
}

/** Whether there is no catalog yet. An empty file is none of Narvik's: one is made elsewhere and then moved into place. */
function isNew(file: string): boolean {
  const size = statSync(file, { throwIfNoEntry: false })?.size
  if (size !== undefined && size > 0) return false
  const log = statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0
  // SQLite would take a log without its database for rubbish, and remove it.
  if (size === undefined && log === 0) return true
  const found = size === undefined ? `${file}-wal without it` : 'an empty file'
  throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found ${found}, needed an intact catalog`, { hint: CORRUPT_HINT })
}

/** What ends in the middle of this leaves no catalog. */
function makeNew(file: string): void {
  const temporary = `${file}.new`
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${temporary}${suffix}`, { force: true })
  // SQLite gives its journal files the mode of the database, so the database is made first, for its owner only.
  closeSync(openSync(temporary, 'a', 0o600))
  openAndMigrate(temporary).close()
  renameSync(temporary, file)
}

/** Looks at it without a right to write: whoever may write puts the log into the database when it closes it, also into a damaged one. */
function inspect(file: string): void {
  const database = new SqliteDatabase(file, { readonly: true, timeout: CATALOG_BUSY_TIMEOUT_MS })
  try {
    identify(database, file)
    check(database, file)
    checkVersion(database, file)
  } finally {
    database.close()
  }
}

function openAndMigrate(file: string): Database {
  const database = new SqliteDatabase(file, { timeout: CATALOG_BUSY_TIMEOUT_MS })
  try {
    database.pragma('journal_mode = WAL')
    database.pragma('synchronous = FULL')
    database.pragma('foreign_keys = ON')
    database.pragma('trusted_schema = OFF')
    database.pragma(`journal_size_limit = ${CATALOG_WAL_BYTES}`)
    migrate(database)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

function identify(database: Database, file: string): void {
  const id = database.pragma('application_id', { simple: true })
  if (id === APPLICATION_ID) return
  throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found a database of another program (application id ${String(id)}), needed Narvik's`, { hint: 'Give the daemon a data directory of its own' })
}

function check(database: Database, file: string): void {
  const found = database.pragma('quick_check(1)', { simple: true })
  if (found !== 'ok') {
    throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found it damaged (${String(found)}), needed it intact`, { hint: CORRUPT_HINT })
  }
  const orphans = database.pragma('foreign_key_check') as unknown[]
  if (orphans.length > 0) {
    throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found ${orphans.length} rows of images that are not there, needed none`, { hint: CORRUPT_HINT })
  }
}

/** The number in a migration's file name is the `user_version` that it leads to. */
function checkVersion(database: Database, file: string): void {
  const newest = migrationFiles().length
  const version = versionOf(database)
  if (version > newest) {
    throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found version ${version}, needed ${newest} or older`, { hint: 'It was written by a newer Narvik: run that one, or use another data directory' })
  }
  if (version < 1) {
    throw new NarvikError('corrupt-catalog', `Cannot open the catalog ${file}: found version ${version}, needed 1 to ${newest}`, { hint: CORRUPT_HINT })
  }
}

function migrate(database: Database): void {
  const version = versionOf(database)
  for (const [index, name] of migrationFiles().entries()) {
    if (index < version) continue
    if (Number(name.slice(0, 3)) !== index + 1) throw new NarvikError('internal', `Cannot migrate the catalog: found ${name}, needed number ${index + 1}`)
    database.transaction(() => {
      database.exec(readFileSync(`${MIGRATIONS}${name}`, 'utf8'))
      database.pragma(`application_id = ${APPLICATION_ID}`)
      database.pragma(`user_version = ${index + 1}`)
    }).immediate()
  }
}

function migrationFiles(): string[] {
  return readdirSync(MIGRATIONS).filter(name => name.endsWith('.sql')).sort()
}

function versionOf(database: Database): number {
  return Number(database.pragma('user_version', { simple: true }))
}

/** The error for a stored value that no Narvik writes. */
export function corruptValue(what: string, error: unknown): NarvikError {
  return new NarvikError('corrupt-catalog', `Cannot read the catalog: found ${what} (${messageOf(error)}), needed a value that Narvik writes`, { cause: error, hint: CORRUPT_HINT })
}
