import type { Statement } from 'better-sqlite3'
import { NarHash } from '../image/nar-hash.ts'
import { fromSqliteError } from './database.ts'
import type { Database } from './database.ts'

/**
 * What decides how long an image is kept: pins, uses, proofs, and what it takes on disk. None of it is a state, so none of
 * it is in the journal. An image that is not in the catalog is passed over.
 */
export class Keeping {
  readonly #database: Database
  readonly #now: () => Date
  readonly #pin: Statement<[object]>
  readonly #use: Statement<[object]>
  readonly #prove: Statement<[object]>
  readonly #measure: Statement<[object]>
  readonly #prioritise: Statement<[object]>
  readonly #unmeasured: Statement<[], Uint8Array>
  readonly #total: Statement<[], number>

  constructor(database: Database, now: () => Date) {
    this.#database = database
    this.#now = now
    this.#pin = database.prepare('UPDATE images SET pinned_at = CASE WHEN @pinned THEN coalesce(pinned_at, @at) END WHERE nar_hash = @narHash')
    this.#use = database.prepare('UPDATE images SET used_at = @at WHERE nar_hash = @narHash AND used_at < @at')
    this.#prove = database.prepare(`UPDATE images SET proven_at = @at WHERE nar_hash = @narHash AND state = 'verified'`)
    this.#measure = database.prepare(`UPDATE images SET disk_bytes = @diskBytes WHERE nar_hash = @narHash AND state = 'verified'`)
    this.#prioritise = database.prepare('UPDATE images SET priority = @priority WHERE nar_hash = @narHash')
    this.#unmeasured = database.prepare<[], Uint8Array>(`SELECT nar_hash FROM images WHERE state = 'verified' AND place = 'content' AND disk_bytes IS NULL`).pluck()
    this.#total = database.prepare<[], number>(`SELECT coalesce(sum(disk_bytes), 0) FROM images WHERE state = 'verified' AND place = 'content'`).pluck()
  }

  setPinned(narHash: NarHash, pinned: boolean): void {
    this.#run('pin an image', () => { this.#pin.run({ narHash: narHash.bytes, pinned: pinned ? 1 : 0, at: this.#now().getTime() }) })
  }

  /** Puts down when each of many images was last used, in one transaction; an earlier time than the one that is there changes nothing. */
  markUsed(uses: Iterable<readonly [NarHash, Date]>): void {
    this.#run('note the use of images', () => {
      this.#database.transaction(() => {
        for (const [narHash, at] of uses) this.#use.run({ narHash: narHash.bytes, at: at.getTime() })
      }).immediate()
    })
  }

  /** Puts down that a verified image was proven again just now. */
  markProven(narHash: NarHash): void {
    this.#run('note the proof of an image', () => { this.#prove.run({ narHash: narHash.bytes, at: this.#now().getTime() }) })
  }

  setPriority(narHash: NarHash, priority: number): void {
    this.#run('note the priority of an image', () => { this.#prioritise.run({ narHash: narHash.bytes, priority }) })
  }

  /** Puts down what the published tree of a verified image takes on disk; forgotten when its state changes. */
  setDiskBytes(narHash: NarHash, diskBytes: number): void {
    this.#run('note the size of an image', () => { this.#measure.run({ narHash: narHash.bytes, diskBytes }) })
  }

  /** The published images of which nobody has put down yet what they take on disk. */
  unmeasured(): NarHash[] {
    return this.#run('list the images', () => this.#unmeasured.all().map(bytes => NarHash.fromBytes(bytes)))
  }

  /** Bytes on disk of all published images that were measured. */
  get diskBytes(): number {
    return this.#run('add up the images', () => this.#total.get() ?? 0)
  }

  #run<Result>(action: string, work: () => Result): Result {
    try {
      return work()
    } catch (error) {
      throw fromSqliteError(error, action)
    }
  }
}
