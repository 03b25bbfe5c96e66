import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { expect, test } from 'vitest'
import { Catalog } from '../../../src/store/catalog.ts'
import { someHash, someMetadata, WAY_TO } from '../../helpers/images.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const MIGRATIONS = join(import.meta.dirname, '../../../src/store/migrations')
const DIGEST = 'ab'.repeat(32)

test('a catalog loses the manifests that have no chunks, and nothing else', async () => {
  const file = join(await temporaryDirectory(), 'catalog.db')
  const catalog = Catalog.open(file)
  const manifests = { old: Buffer.from('NARVIKMF\x01rest', 'latin1'), present: Buffer.from('NARVIKMF\x02rest', 'latin1') }
  const names = ['old', 'present'] as const
  for (const name of names) {
    const narHash = someHash(name)
    catalog.create({ narHash, source: 'import', place: 'content', name })
    catalog.describe(narHash, someMetadata(narHash, { manifestDigest: DIGEST }), manifests[name])
    for (const event of WAY_TO.verified) catalog.transition(narHash, event, { reason: 'test' })
  }
  catalog.close()
  replay(file, name => name.endsWith('-chunks.sql'))
  const migrated = Catalog.open(file)
  const rows = names.map(name => migrated.getByName(name))
  expect(rows.map(row => [row?.state, row?.manifestDigest])).toEqual([['verified', null], ['verified', DIGEST]])
  expect(names.map(name => migrated.manifest(someHash(name)))).toEqual([undefined, manifests.present])
  migrated.close()
})

/** Runs a migration of which nothing but rows depends once more, on rows that were written after it. */
function replay(file: string, isIt: (name: string) => boolean): void {
  const database = new SqliteDatabase(file)
  for (const name of readdirSync(MIGRATIONS).filter(isIt)) database.exec(readFileSync(join(MIGRATIONS, name), 'utf8'))
  database.close()
}
