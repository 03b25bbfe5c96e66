import type { Statement } from 'better-sqlite3'
import { NarHash } from '../image/nar-hash.ts'
import { fromSqliteError } from './database.ts'
import type { Database } from './database.ts'

/** Images of the catalog that are wanted with everything that they refer to; one whose row is removed no longer is. */
export class WantedClosures {
  readonly #add: Statement<[Uint8Array]>
  readonly #remove: Statement<[Uint8Array]>
  readonly #list: Statement<[], Uint8Array>

  constructor(database: Database) {
    this.#add = database.prepare('INSERT OR IGNORE INTO wanted_closures (nar_hash) VALUES (?)')
    this.#remove = database.prepare('DELETE FROM wanted_closures WHERE nar_hash = ?')
    this.#list = database.prepare<[], Uint8Array>('SELECT nar_hash FROM wanted_closures ORDER BY nar_hash').pluck()
  }

  /** Only for an image that has a row. */
  add(narHash: NarHash): void {
    attempt(`note that the closure of ${narHash.toSri()} is wanted`, () => this.#add.run(narHash.bytes))
  }

  /** One that is not wanted is no error. */
  remove(narHash: NarHash): void {
    attempt(`note that the closure of ${narHash.toSri()} is no longer wanted`, () => this.#remove.run(narHash.bytes))
  }

  list(): NarHash[] {
    return attempt('list the closures that are wanted', () => this.#list.all().map(bytes => NarHash.fromBytes(bytes)))
  }
}

function attempt<Result>(action: string, work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    throw fromSqliteError(error, action)
  }
}
