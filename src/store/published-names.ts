import type { Statement } from 'better-sqlite3'
import { NarvikError } from '../errors.ts'
import { type NameRecord, publisherId, readNameRecord } from '../image/name-record.ts'
import { corruptValue, fromSqliteError } from './database.ts'
import type { Database } from './database.ts'

/** The newest record that was ever accepted of a published name. It was proven then; it may have expired since. */
export interface KeptName {
  readonly record: NameRecord
  /** As it is on the wire. */
  readonly value: Uint8Array
  /** Whether this host keeps it in the DHT. */
  readonly own: boolean
}

interface Stored {
  record: Uint8Array
  own: number
}

/** The published names that this host has seen: what it knows of a name never gets older. */
export class PublishedNames {
  readonly #database: Database
  readonly #list: Statement<[], Stored>
  readonly #get: Statement<[object], Stored>
  readonly #put: Statement<[object]>

  constructor(database: Database) {
    this.#database = database
    this.#list = database.prepare('SELECT record, own FROM published_names ORDER BY name, publisher')
    this.#get = database.prepare('SELECT record, own FROM published_names WHERE publisher = @publisher AND name = @name')
    this.#put = database.prepare('INSERT OR REPLACE INTO published_names (publisher, name, seq, record, own) VALUES (@publisher, @name, @seq, @value, @own)')
  }

  list(): KeptName[] {
    return run('list the published names', () => this.#list.all().map(toKeptName))
  }

  /** `publisher` is a public key in hex. */
  get(publisher: string, name: string): KeptName | undefined {
    return run(`look up the published name ${name}`, () => {
      const stored = this.#get.get({ publisher, name })
      return stored === undefined ? undefined : toKeptName(stored)
    })
  }

  /**
   * Remembers a proven record.
   * @throws NarvikError `refused` where a newer one of the same name is known, or another with the same number.
   */
  accept({ record, value, own }: KeptName): void {
    const publisher = publisherId(record.publisher)
    run(`remember the published name ${record.name}`, () => { this.#database.transaction(() => {
      const known = this.get(publisher, record.name)
      const isSame = known !== undefined && Buffer.compare(known.value, value) === 0
      if (known !== undefined && !isSame && known.record.seq >= record.seq) {
        throw new NarvikError('refused', `Cannot accept the published name ${record.name}: found sequence number ${record.seq}, needed one above ${known.record.seq}, which was seen before`)
      }
      this.#put.run({ publisher, name: record.name, seq: record.seq, value, own: Number(own || (isSame && known.own)) })
    }).immediate(); })
  }
}

function toKeptName({ record: value, own }: Stored): KeptName {
  try {
    return { record: readNameRecord(value).record, value, own: own === 1 }
  } catch (error) {
    throw corruptValue('a published name that makes no sense', error)
  }
}

function run<Result>(action: string, work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    throw fromSqliteError(error, action)
  }
}
