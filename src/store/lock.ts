import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { messageOf, NarvikError } from '../errors.ts'
import { fromSqliteError } from './database.ts'

/** The file that is locked. It stays empty: only the lock on it counts. */
export const LOCK_FILE = 'lock'

/**
 * Holds a data directory for one process. Node has no file locks of its own, so SQLite takes one on an empty database: a
 * lock of the kernel, which goes with the process however that ends.
 */
export class DirectoryLock {
  readonly #database: SqliteDatabase.Database

  private constructor(database: SqliteDatabase.Database) {
    this.#database = database
  }

  /** @throws NarvikError `in-use` where another process, or another part of this one, holds it. */
  static take(directory: string): DirectoryLock {
    let database: SqliteDatabase.Database | undefined
    try {
      database = new SqliteDatabase(join(directory, LOCK_FILE), { timeout: 0 })
      database.exec('BEGIN EXCLUSIVE')
      return new DirectoryLock(database)
    } catch (error) {
      database?.close()
      throw lockError(error, directory)
    }
  }

  release(): void {
    this.#database.close()
  }
}

function lockError(error: unknown, directory: string): NarvikError {
  if (error instanceof SqliteDatabase.SqliteError && error.code.startsWith('SQLITE_BUSY')) {
    return new NarvikError('in-use', `Cannot open the data directory ${directory}: found another daemon at work in it, needed it free`, { cause: error, hint: 'Stop the other daemon, or give this one its own directory with --data-dir' })
  }
  if (error instanceof SqliteDatabase.SqliteError && error.code.startsWith('SQLITE_FULL')) return fromSqliteError(error, `lock the data directory ${directory}`)
  return new NarvikError('io-error', `Cannot lock the data directory ${directory}: found ${messageOf(error)}, needed a lock on its file "${LOCK_FILE}"`, { cause: error, hint: `Check that the daemon's user may write ${directory} and that ${LOCK_FILE} in it is empty` })
}
