import { readdir, readlink, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { expect } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import { expectJournal } from './invariants.ts'
import { until, type TestDaemon } from './fleet.ts'
import { nixHashPath } from './real-nix.ts'

interface Row {
  readonly narHash: NarHash
  readonly state: string
  readonly place: string
  readonly name: string | null
  readonly storePath: string | null
}

interface Entry {
  readonly narHash: NarHash
  readonly from: string | null
  readonly to: string | null
}

/** What is true at any moment, also while the daemon works: nothing is in sight but proven bytes, and the journal has no gap. */
export async function expectSound({ dataDir, client }: TestDaemon, unknownDamage: ReadonlySet<string> = new Set()): Promise<void> {
  for (const name of await readdir(join(dataDir, 'images'))) {
    if (unknownDamage.has(name)) continue
    expect(await nixHashPath(join(dataDir, 'images', name)), 'what is in images/ is what its name says').toBe(NarHash.parse(name).toSri())
  }
  for (const name of await readdir(join(dataDir, 'by-name'))) await realpath(join(dataDir, 'by-name', name))
  for (const { narHash, path, state } of await client.list()) {
    expect(path !== null, 'verified images have a path, and no others').toBe(state === 'verified')
    if (path !== null && !unknownDamage.has(NarHash.parse(narHash).toNix32())) expect(await nixHashPath(path)).toBe(narHash)
  }
  expectJournals(dataDir)
}

/** What is true once all is done that a start takes up: rows and files agree, and nothing is left over. */
export async function expectSettled(host: TestDaemon, unknownDamage: ReadonlySet<string> = new Set()): Promise<void> {
  let failure: unknown
  await until(async () => {
    failure = await expectAgreement(host).then(() => undefined, (error: unknown) => error)
    return failure === undefined
  }, 'rows and files to agree').catch(() => { throw failure })
  await expectSound(host, unknownDamage)
}

async function expectAgreement({ dataDir, client }: TestDaemon): Promise<void> {
  expect(await client.transfers(), 'nothing is under way').toEqual([])
  const rows = rowsOf(dataDir)
  expect(rows.filter(({ state }) => state === 'receiving' || state === 'quarantined'), 'nothing waits for its verdict').toEqual([])
  const verified = rows.filter(({ state }) => state === 'verified')
  expect(await list(dataDir, 'images')).toEqual(verified.filter(({ place }) => place === 'content').map(({ narHash }) => narHash.toNix32()).sort())
  expect(await list(dataDir, 'by-name')).toEqual(verified.flatMap(({ name }) => name ?? []).sort())
  for (const { name, place, storePath, narHash } of verified) {
    if (name !== null) expect(await readlink(join(dataDir, 'by-name', name))).toBe(place === 'content' ? join('../images', narHash.toNix32()) : storePath)
  }
  const incomplete = rows.filter(({ state }) => state !== 'verified').map(({ narHash }) => narHash.toNix32())
  for (const name of await list(dataDir, 'quarantine')) expect(incomplete, 'what is in quarantine belongs to an image').toContain(name)
  const held = rows.map(({ narHash }) => narHash.toNix32())
  for (const name of await list(dataDir, 'gcroots')) {
    expect(held, 'what is protected belongs to an image').toContain(name.slice(0, 52))
    expect(name).not.toContain('.tmp-')
  }
}

async function list(dataDir: string, directory: string): Promise<string[]> {
  return (await readdir(join(dataDir, directory))).sort()
}

/** Every change of state begins where the one before it ended, also those of images that are gone. */
function expectJournals(dataDir: string): void {
  const { rows, entries } = look(dataDir)
  const states = new Map(rows.map(({ narHash, state }) => [narHash.toNix32(), state]))
  for (const [key, journal] of Map.groupBy(entries, ({ narHash }) => narHash.toNix32())) expectJournal(journal, states.get(key) ?? null)
  const journals = new Set(entries.map(({ narHash }) => narHash.toNix32()))
  for (const key of states.keys()) expect(journals, 'an image has a journal').toContain(key)
}

function rowsOf(dataDir: string): Row[] {
  return look(dataDir).rows
}

/** Reads the catalog as it is on disk, past the daemon, in one transaction. */
function look(dataDir: string): { rows: Row[], entries: Entry[] } {
  const database = new SqliteDatabase(join(dataDir, 'catalog.db'), { readonly: true })
  try {
    return database.transaction(() => {
      const rows = database.prepare<[], { nar_hash: Uint8Array, state: string, place: string, name: string | null, store_path: string | null }>('SELECT nar_hash, state, place, name, store_path FROM images').all()
      const entries = database.prepare<[], { nar_hash: Uint8Array, from_state: string | null, to_state: string | null }>('SELECT nar_hash, from_state, to_state FROM journal ORDER BY id').all()
      return {
        rows: rows.map(({ nar_hash, store_path, ...row }) => ({ ...row, narHash: NarHash.fromBytes(nar_hash), storePath: store_path })),
        entries: entries.map(({ nar_hash, from_state, to_state }) => ({ narHash: NarHash.fromBytes(nar_hash), from: from_state, to: to_state })),
      }
    })()
  } finally {
    database.close()
  }
}
