import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import type { KnownPath } from '../../../src/store/known-paths.ts'
import { stillRegistered } from '../../../src/store/nix-registrations.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const known: KnownPath = {
  path: someStorePath('image'), stamp: 'as it was', narHash: someHash(1), narSize: 120, references: [someStorePath('a'), someStorePath('b')], deriver: someStorePath('image.drv'),
  ca: 'text:sha256:0', signatures: ['fleet-1:AA==', 'fleet-2:BB=='], registrationTime: 1000, ultimate: true,
}

/** A database with the tables that Nix 2.8 has, where the path is registered as it is known. */
async function registered(change = ''): Promise<string> {
  const file = join(await temporaryDirectory(), 'db.sqlite')
  const database = new SqliteDatabase(file)
  database.exec(`
    CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, hash TEXT NOT NULL, registrationTime INTEGER NOT NULL, deriver TEXT, narSize INTEGER, ultimate INTEGER, sigs TEXT, ca TEXT);
    CREATE TABLE Refs (referrer INTEGER NOT NULL, reference INTEGER NOT NULL, PRIMARY KEY (referrer, reference));`)
  const insert = database.prepare('INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) VALUES (?, ?, ?, ?, ?, ?, ?, ?)')
  insert.run(known.path, `sha256:${known.narHash.toHex()}`, 1000, known.deriver, 120, 1, known.signatures.toReversed().join(' '), known.ca)
  for (const reference of ['b', 'a', 'other']) insert.run(someStorePath(reference), 'sha256:0', 1, null, 1, 0, null, null)
  database.exec(`INSERT INTO Refs SELECT 1, id FROM ValidPaths WHERE path IN ('${someStorePath('a')}', '${someStorePath('b')}');${change}`)
  database.close()
  return file
}

describe('a path that Nix has registered', () => {
  it('is the same, in whatever order its references and signatures are', async () => {
    expect(stillRegistered(await registered(), [known])).toEqual(new Set([known.path]))
  })

  it.each([
    ['time', 'UPDATE ValidPaths SET registrationTime = 1001 WHERE id = 1'],
    ['hash', `UPDATE ValidPaths SET hash = 'sha256:${someHash(2).toHex()}' WHERE id = 1`],
    ['size', 'UPDATE ValidPaths SET narSize = 128 WHERE id = 1'],
    ['trust', 'UPDATE ValidPaths SET ultimate = 0 WHERE id = 1'],
    ['deriver', 'UPDATE ValidPaths SET deriver = NULL WHERE id = 1'],
    ['content address', `UPDATE ValidPaths SET ca = 'text:sha256:1' WHERE id = 1`],
    ['signatures', `UPDATE ValidPaths SET sigs = 'fleet-1:AA==' WHERE id = 1`],
    ['references, one more', 'INSERT INTO Refs SELECT 1, max(id) FROM ValidPaths'],
    ['references, one less', 'DELETE FROM Refs WHERE reference = 2'],
    ['place, which is nowhere', 'DELETE FROM ValidPaths WHERE id = 1'],
  ])('is another one with another %s', async (_, change) => {
    expect(stillRegistered(await registered(change), [known])).toEqual(new Set())
  })

  it('has facts that are absent, in both', async () => {
    const bare: KnownPath = { ...known, deriver: null, ca: null, signatures: [], references: [], ultimate: false }
    const change = `UPDATE ValidPaths SET deriver = NULL, ca = NULL, sigs = NULL, ultimate = NULL WHERE id = 1; DELETE FROM Refs`
    expect(stillRegistered(await registered(change), [bare])).toEqual(new Set([bare.path]))
    expect(stillRegistered(await registered(`${change}; UPDATE ValidPaths SET deriver = '', ca = '', sigs = '' WHERE id = 1`), [bare])).toEqual(new Set([bare.path]))
  })

  it.each([
    ['other tables', 'DROP TABLE Refs'],
    ['fewer columns', 'ALTER TABLE ValidPaths DROP COLUMN ca'],
  ])('is not known where the database has %s', async (_, change) => {
    expect(stillRegistered(await registered(change), [known])).toEqual(new Set())
  })

  it('is not known where there is no database, and none is made; nor while one is being written to', async () => {
    const absent = join(await temporaryDirectory(), 'db.sqlite')
    expect(stillRegistered(absent, [known])).toEqual(new Set())
    expect(() => new SqliteDatabase(absent, { fileMustExist: true })).toThrow()
    const file = await registered()
    const writer = new SqliteDatabase(file)
    writer.exec('BEGIN EXCLUSIVE')
    expect(stillRegistered(file, [known])).toEqual(new Set())
    writer.close()
  })
})
