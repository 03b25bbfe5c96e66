import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import type { NarvikError } from '../../../src/errors.ts'
import { EVENTS, STATES, TRANSITIONS } from '../../../src/image/states.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import { fromSqliteError, openDatabase } from '../../../src/store/database.ts'
import { PLACES, SOURCES } from '../../../src/store/image-row.ts'
import { someHash, someMetadata, WAY_TO } from '../../helpers/images.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

async function catalogFile(): Promise<string> {
  return join(await temporaryDirectory(), 'catalog.db')
}

/** The database of a new catalog, open as any program could open it. */
async function rawCatalog(prepare: (catalog: Catalog) => void = () => undefined): Promise<SqliteDatabase.Database> {
  const file = await catalogFile()
  const catalog = Catalog.open(file)
  prepare(catalog)
  catalog.close()
  const database = new SqliteDatabase(file)
  onTestFinished(() => { database.close() })
  return database
}

function failureOf(work: () => unknown): NarvikError {
  try {
    work()
  } catch (error) {
    if (isNarvikError(error)) return error
    throw error
  }
  throw new Error('did not fail')
}

function isTaken(database: SqliteDatabase.Database, sql: string, ...values: unknown[]): boolean {
  try {
    database.prepare(sql).run(...values)
    return true
  } catch (error) {
    if (error instanceof SqliteDatabase.SqliteError && error.code.startsWith('SQLITE_CONSTRAINT')) return false
    throw error
  }
}

describe('the rules in SQL', () => {
  test('hold for what an older SQLite checks, such as a distribution\'s own over a copy of the catalog', async () => {
    const database = await rawCatalog(catalog => { catalog.create({ narHash: someHash(1), source: 'fetch', place: 'content' }) })
    database.function('json_valid', { deterministic: true }, value => value === null ? 0 : 1)
    expect(database.prepare('SELECT json_valid(NULL), (SELECT count(*) FROM journal WHERE evidence IS NULL)').raw().get()).toEqual([0, 1])
    expect(database.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }])
  })

  test('take the steps of the transition table into the journal, and no other', async () => {
    const database = await rawCatalog()
    const insert = 'INSERT INTO journal (nar_hash, at, from_state, event, to_state, reason) VALUES (?, 0, ?, ?, ?, \'test\')'
    const key = someHash(1).bytes
    const states = [...STATES, null, 'other']
    for (const from of states) {
      for (const to of states) {
        for (const event of [...EVENTS, 'other']) {
          const legal = STATES.some(state => state === from && EVENTS.some(name => name === event && TRANSITIONS[state][name] === to)) && to !== null
          expect(isTaken(database, insert, key, from, event, to), `${from} ${event} ${to}`).toBe(legal)
        }
        expect(isTaken(database, insert, key, from, 'create', to), `${from} create ${to}`).toBe(from === null && to === 'wanted')
      }
    }
  })

  test('know the states, sources and places that the code knows', async () => {
    const database = await rawCatalog()
    const sql = database.prepare('SELECT sql FROM sqlite_schema WHERE name = \'images\'').pluck().get()
    for (const [column, values] of Object.entries({ state: STATES, source: SOURCES, place: PLACES })) {
      const list = new RegExp(`CHECK \\(${column} IN \\(([^)]*)\\)\\)`).exec(String(sql))?.[1]
      expect(list?.split(', ')).toEqual(values.map(value => `'${value}'`))
    }
  })

  test('refuse a state that appears, changes or goes without its journal entry', async () => {
    const narHash = someHash(1)
    const database = await rawCatalog(catalog => {
      catalog.create({ narHash, source: 'fetch', place: 'content' })
      catalog.describe(narHash, someMetadata(narHash), null)
      for (const event of WAY_TO.quarantined) catalog.transition(narHash, event, { reason: 'test' })
    })
    expect(isTaken(database, 'UPDATE images SET state = \'verified\', verified_at = 0, reason = NULL')).toBe(false)
    expect(isTaken(database, 'UPDATE images SET nar_hash = ?', someHash(2).bytes)).toBe(false)
    expect(isTaken(database, 'DELETE FROM images')).toBe(false)
    for (const state of STATES) {
      expect(isTaken(database, 'INSERT INTO images (nar_hash, state, source, place, reason, created_at) VALUES (?, ?, \'fetch\', \'content\', \'test\', 0)', someHash(2).bytes, state)).toBe(false)
    }
    expect(isTaken(database, 'UPDATE journal SET reason = \'other\'')).toBe(false)
    expect(isTaken(database, 'DELETE FROM journal')).toBe(false)
  })

  test('refuse a verified image without its time, its size or with a reason', async () => {
    for (const set of ['verified_at = NULL', 'nar_size = NULL', 'reason = \'x\'', 'place = \'nix-store\'']) {
      const narHash = someHash(1)
      const database = await rawCatalog(catalog => {
        catalog.create({ narHash, source: 'fetch', place: 'content' })
        catalog.describe(narHash, someMetadata(narHash), null)
        for (const event of WAY_TO.verified) catalog.transition(narHash, event, { reason: 'test' })
      })
      expect(isTaken(database, `UPDATE images SET ${set}`), set).toBe(false)
    }
  })

  test('keep typed, related tables', async () => {
    const database = await rawCatalog()
    const tables = database.prepare<[], { name: string, strict: number }>('SELECT name, strict FROM pragma_table_list WHERE schema = \'main\' AND name NOT LIKE \'sqlite_%\'').all()
    expect(tables.map(table => table.name).sort()).toEqual(['bans', 'image_references', 'image_signatures', 'images', 'journal', 'known_paths', 'manifests', 'other_store_paths', 'published_names', 'wanted_closures'])
    expect(tables.every(table => table.strict === 1)).toBe(true)
    database.pragma('foreign_keys = ON')
    expect(isTaken(database, 'INSERT INTO manifests VALUES (?, ?)', someHash(1).bytes, Buffer.from('x'))).toBe(false)
  })
})

describe('opening a catalog', () => {
  test('makes a file for its owner only, and its log likewise', async () => {
    const file = await catalogFile()
    const catalog = Catalog.open(file)
    onTestFinished(() => { catalog.close() })
    catalog.create({ narHash: someHash(1), source: 'fetch', place: 'content' })
    for (const path of [file, `${file}-wal`]) expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('writes through a log, in full safety, with foreign keys', async () => {
    const database = openDatabase(await catalogFile())
    onTestFinished(() => { database.close() })
    const settings = ['journal_mode', 'synchronous', 'foreign_keys'].map(name => database.pragma(name, { simple: true }))
    expect(settings).toEqual(['wal', 2, 1])
  })

  test('of a newer Narvik is refused, and left as it was', async () => {
    const file = await catalogFile()
    Catalog.open(file).close()
    const database = new SqliteDatabase(file)
    const version = Number(database.pragma('user_version', { simple: true }))
    database.pragma(`user_version = ${version + 1}`)
    database.close()
    const failure = failureOf(() => Catalog.open(file))
    expect(failure.code).toBe('corrupt-catalog')
    expect(failure.message).toContain(`found version ${version + 1}, needed ${version}`)
    expect(failure.hint).toContain('newer Narvik')
  })

  test('of another program is refused, and left as it was', async () => {
    const file = await catalogFile()
    const other = new SqliteDatabase(file)
    other.exec('CREATE TABLE theirs (a)')
    other.close()
    const before = await readFile(file)
    expect(failureOf(() => Catalog.open(file))).toMatchObject({ code: 'corrupt-catalog', message: expect.stringContaining('another program') as string })
    expect(await readFile(file)).toEqual(before)
  })

  test('that is no database, or cut off, or overwritten in part is refused with what to do', async () => {
    const garbage = await catalogFile()
    await writeFile(garbage, 'this is not a database, and it is longer than its header'.repeat(100))
    const cut = await filledCatalog()
    const whole = await readFile(cut)
    await writeFile(cut, whole.subarray(0, whole.length - 3 * 4096))
    const scratched = await filledCatalog()
    const handle = await open(scratched, 'r+')
    await handle.write(Buffer.alloc(4096, 0xff), 0, 4096, 3 * 4096)
    await handle.close()
    for (const file of [garbage, cut, scratched]) {
      const failure = failureOf(() => Catalog.open(file))
      expect(failure.code, failure.message).toBe('corrupt-catalog')
      expect(failure.hint).toContain('start again')
    }
  })

  test('with rows of images that are gone is refused', async () => {
    const file = await filledCatalog()
    const database = new SqliteDatabase(file)
    database.pragma('foreign_keys = OFF')
    database.prepare('INSERT INTO manifests VALUES (?, ?)').run(someHash('gone').bytes, Buffer.from('x'))
    database.close()
    expect(failureOf(() => Catalog.open(file))).toMatchObject({ code: 'corrupt-catalog' })
  })

  test('where there can be no file fails with the path', async () => {
    const directory = await temporaryDirectory()
    expect(failureOf(() => Catalog.open(join(directory, 'absent', 'catalog.db')))).toMatchObject({ code: 'not-found' })
    await mkdir(join(directory, 'catalog.db'))
    expect(failureOf(() => Catalog.open(join(directory, 'catalog.db'))).message).toContain(directory)
  })
})

test('a value that no Narvik writes is reported, not shown', async () => {
  const file = await filledCatalog()
  const database = new SqliteDatabase(file)
  database.pragma('ignore_check_constraints = ON')
  database.prepare('UPDATE images SET place = \'elsewhere\'').run()
  database.close()
  const catalog = Catalog.open.bind(Catalog, file)
  expect(failureOf(() => catalog().list())).toMatchObject({ code: 'corrupt-catalog' })
})

test('an error of SQLite has the code that fits', () => {
  const codes = { SQLITE_FULL: 'disk-full', SQLITE_BUSY_SNAPSHOT: 'in-use', SQLITE_IOERR_FSYNC: 'io-error', SQLITE_CORRUPT_VTAB: 'corrupt-catalog', SQLITE_READONLY: 'unreadable', SQLITE_MISUSE: 'internal' }
  for (const [sqlite, code] of Object.entries(codes)) {
    expect(fromSqliteError(new SqliteDatabase.SqliteError('what it says', sqlite), 'list the images')).toMatchObject({ code, message: expect.stringMatching(/^Cannot list the images: found what it says/) as string })
  }
})

/** A catalog of several pages. */
async function filledCatalog(): Promise<string> {
  const file = await catalogFile()
  const catalog = Catalog.open(file)
  for (let seed = 0; seed < 50; seed++) {
    const narHash = someHash(seed)
    catalog.create({ narHash, source: 'fetch', place: 'content' })
    catalog.describe(narHash, someMetadata(narHash), Buffer.alloc(2000, seed))
  }
  catalog.close()
  return file
}
