import type { Statement } from 'better-sqlite3'
import { NarHash } from '../image/nar-hash.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { MAX_KNOWN_PATHS } from '../limits.ts'
import { corruptValue, fromSqliteError } from './database.ts'
import type { Database } from './database.ts'

/** What Nix said of a valid store path, to be remembered. */
export interface KnownPath extends NixPathInfo {
  /** What the store looked like when Nix was asked. */
  readonly stamp: string
}

type Facts = Pick<KnownPath, 'references' | 'deriver' | 'ca' | 'signatures' | 'ultimate'>

interface Stored {
  path: string
  stamp: string
  nar_hash: Uint8Array
  nar_size: number
  registration_time: number | null
  facts: string
}

/** Answers of Nix about store paths: a memory that may be lost at any time, and that forgets the oldest. */
export class KnownPaths {
  readonly #database: Database
  readonly #now: () => Date
  readonly #get: Statement<[string], Stored>
  readonly #put: Statement<[object]>
  readonly #forgetOldest: Statement<[object]>

  constructor(database: Database, now: () => Date) {
    this.#database = database
    this.#now = now
    this.#get = database.prepare('SELECT * FROM known_paths WHERE path = ?')
    this.#put = database.prepare(`
      INSERT OR REPLACE INTO known_paths (path, stamp, nar_hash, nar_size, registration_time, facts, asked_at)
      VALUES (@path, @stamp, @narHash, @narSize, @registrationTime, @facts, @at)`)
    this.#forgetOldest = database.prepare(`
      DELETE FROM known_paths WHERE path IN (
        SELECT path FROM known_paths ORDER BY asked_at, path LIMIT max(0, (SELECT count(*) FROM known_paths) - @most))`)
  }

  get(path: string): KnownPath | undefined {
    try {
      const stored = this.#get.get(path)
      return stored === undefined ? undefined : toKnownPath(stored)
    } catch (error) {
      throw fromSqliteError(error, `look up ${path}`)
    }
  }

  /** Remembers answers, and forgets the oldest above `most`. */
  put(known: readonly KnownPath[], { most = MAX_KNOWN_PATHS }: { most?: number } = {}): void {
    const at = this.#now().getTime()
    try {
      this.#database.transaction(() => {
        for (const { path, stamp, narHash, narSize, registrationTime, references, deriver, ca, signatures, ultimate } of known) {
          const facts = JSON.stringify({ references, deriver, ca, signatures, ultimate } satisfies Facts)
          this.#put.run({ path, stamp, narHash: narHash.bytes, narSize, registrationTime, facts, at })
        }
        this.#forgetOldest.run({ most })
      }).immediate()
    } catch (error) {
      throw fromSqliteError(error, 'remember what Nix said')
    }
  }
}

function toKnownPath({ path, stamp, nar_hash, nar_size, registration_time, facts }: Stored): KnownPath {
  try {
    return { path, stamp, narHash: NarHash.fromBytes(nar_hash), narSize: nar_size, registrationTime: registration_time, ...JSON.parse(facts) as Facts }
  } catch (error) {
    throw corruptValue('a store path that makes no sense', error)
  }
}
