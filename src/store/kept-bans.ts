import type { Statement } from 'better-sqlite3'
import { fromSqliteError } from './database.ts'
import type { Database } from './database.ts'

/** A peer that is, or was, kept away. Times are milliseconds since 1970. */
export interface KeptBan {
  readonly peerId: string
  readonly reason: string
  readonly since: number
  readonly until: number
  /** Bans of the peer that are remembered, this one included. */
  readonly times: number
}

/** The bans, as they outlive the daemon. */
export class KeptBans {
  readonly #list: Statement<[], KeptBan>
  readonly #put: Statement<[object]>
  readonly #remove: Statement<[string]>

  constructor(database: Database) {
    this.#list = database.prepare('SELECT peer_id AS peerId, reason, since, until, times FROM bans ORDER BY since, peer_id')
    this.#put = database.prepare('INSERT OR REPLACE INTO bans (peer_id, reason, since, until, times) VALUES (@peerId, @reason, @since, @until, @times)')
    this.#remove = database.prepare('DELETE FROM bans WHERE peer_id = ?')
  }

  list(): KeptBan[] {
    return run('list the bans', () => this.#list.all())
  }

  put(ban: KeptBan): void {
    run(`keep the ban of ${ban.peerId}`, () => this.#put.run({ ...ban }))
  }

  remove(peerId: string): void {
    run(`lift the ban of ${peerId}`, () => this.#remove.run(peerId))
  }
}

function run<Result>(action: string, work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    throw fromSqliteError(error, action)
  }
}
