import { readFileSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { silentLogger } from '../../../src/log.ts'
import { NixCommand } from '../../../src/nix/command.ts'
import { NixError } from '../../../src/nix/nix-error.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import { PathInfos } from '../../../src/tasks/path-infos.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

let store: ThrowAwayStore
beforeEach(() => { store = throwAwayStore() })
afterEach(() => { store.remove() })

async function openCatalog(): Promise<Catalog> {
  const catalog = Catalog.open(join(await temporaryDirectory(), 'catalog.db'))
  onTestFinished(() => { catalog.close() })
  return catalog
}

async function setUp() {
  const nix = new NixCommand({ logger: silentLogger }, { env: store.env })
  const { knownPaths: known } = await openCatalog()
  const asked = vi.spyOn(nix, 'pathInfo')
  return { nix, known, asked, infos: new PathInfos({ nix, known, logger: silentLogger }) }
}

function addPath(name: string): string {
  return store.run('nix', 'store', 'add-path', '--name', name, store.file(name, `this is ${name}`))
}

/** Takes the last change of Nix's database back in time, so that a test need not wait until it is past. */
function settle(): void {
  const database = join(store.root, 'var/db/db.sqlite')
  const { atime, mtimeMs } = statSync(database)
  utimesSync(database, atime, (mtimeMs - 60_000) / 1000)
}

/** Another way for a path to be registered anew: Nix's database was lost, and made again of what somebody had written down. */
function reregister(path: string, { deriver = '', references = [] }: { deriver?: string, references?: string[] } = {}): void {
  const time = sql('SELECT registrationTime FROM ValidPaths WHERE path = ?', path)
  store.run('sh', '-c', 'nix-store --dump-db > registrations && rm -r var/db && nix-store --load-db < registrations')
  sql('DELETE FROM ValidPaths WHERE path = ?', path)
  const hash = store.run('nix-hash', '--type', 'sha256', path)
  const size = store.run('sh', '-c', `nix-store --dump ${path} | wc -c`)
  store.file('registration', [path, hash, size, deriver, references.length, ...references, ''].join('\n'))
  store.run('sh', '-c', 'nix-store --load-db < registration')
  if (deriver !== '' || references.length > 0) sql('UPDATE ValidPaths SET registrationTime = ? WHERE path = ?', time, path)
  settle()
}

function derivation(): string {
  return store.run('nix-instantiate', '-E', 'derivation { name = "other"; system = "x"; builder = "/bin/sh"; }')
}

/** Runs a statement on Nix's own database. */
function sql(statement: string, ...values: unknown[]): unknown {
  const database = new SqliteDatabase(join(store.root, 'var/db/db.sqlite'))
  try {
    const prepared = database.prepare(statement)
    return prepared.reader ? prepared.pluck().get(...values) : prepared.run(...values)
  } finally {
    database.close()
  }
}

async function only(infos: PathInfos, path: string): Promise<NixPathInfo | null> {
  return (await infos.get([path])).get(path) ?? null
}

describe('what Nix said of a path', () => {
  test('is remembered whole, also by the next daemon', async () => {
    const path = addPath('image')
    store.run('nix', 'store', 'sign', '--key-file', store.file('key', store.run('nix', 'key', 'generate-secret', '--key-name', 'fleet-1')), path)
    settle()
    const { infos, asked, nix, known } = await setUp()
    const first = await only(infos, path)
    expect(first).toMatchObject({ path, signatures: [expect.stringMatching(/^fleet-1:/)] })
    expect(await only(infos, path)).toEqual(first)
    expect(await only(new PathInfos({ nix, known, logger: silentLogger }), path)).toEqual(first)
    expect(asked).toHaveBeenCalledTimes(1)
  })

  test.each<[string, (path: string) => void]>([
    ['it is signed', path => {
      store.run('nix', 'store', 'sign', '--key-file', store.file('key', store.run('nix', 'key', 'generate-secret', '--key-name', 'fleet-1')), path)
      settle()
    }],
    ['it is deleted', path => { store.run('nix-store', '--delete', path) }],
    ['it is registered anew', path => {
      store.run('nix-store', '--delete', path)
      addPath('image')
      settle()
    }],
    ['it is registered anew, the same file, at another time', path => { reregister(path) }],
    ['it is registered anew, the same file, in the same second, from another derivation', path => { reregister(path, { deriver: derivation() }) }],
    ['it is registered anew, the same file, in the same second, with other references', path => { reregister(path, { references: [derivation()] }) }],
    ['its file was replaced', path => { store.run('sh', '-c', `cp ${path} copy && rm -f ${path} && mv copy ${path}`) }],
    ['the store is another one', () => { store.run('sh', '-c', 'rm -r var/db') }],
  ])('is asked for again after %s', async (_, change) => {
    const path = addPath('image')
    derivation()
    reregister(path)
    sql('UPDATE ValidPaths SET registrationTime = registrationTime - 10')
    settle()
    const { nix, infos, asked } = await setUp()
    await only(infos, path)
    change(path)
    expect(await only(infos, path)).toEqual((await nix.pathInfo([path])).get(path))
    expect(asked).toHaveBeenCalledTimes(3)
  })

  test('is not asked for again after anything else is registered', async () => {
    const path = addPath('image')
    settle()
    const { nix, infos, asked } = await setUp()
    const first = await only(infos, path)
    for (const other of ['one', 'two']) {
      addPath(other)
      settle()
      expect(await only(infos, path)).toEqual(first)
    }
    expect(asked).toHaveBeenCalledTimes(1)
    expect((await nix.pathInfo([path])).get(path)).toEqual(first)
  })

  test('is asked for again where the database can not be looked at, or is one of another Nix', async () => {
    const path = addPath('image')
    settle()
    const { infos, asked } = await setUp()
    await only(infos, path)
    sql('ALTER TABLE ValidPaths RENAME COLUMN sigs TO signatures')
    asked.mockImplementation(([asked = '']) => Promise.resolve(new Map([[asked, null]])))
    expect(await only(infos, path)).toBeNull()
    expect(asked).toHaveBeenCalledTimes(2)
  })

  test('is not remembered while it may still change unseen', async () => {
    const path = addPath('image')
    const now = new Date(Date.now() + 3600_000)
    utimesSync(join(store.root, 'var/db/db.sqlite'), now, now)
    const { infos, asked, known } = await setUp()
    await only(infos, path)
    await only(infos, path)
    expect(asked).toHaveBeenCalledTimes(2)
    expect(known.get(path)).toBeUndefined()
  })

  test('is not remembered of a path that is not valid', async () => {
    addPath('other')
    settle()
    const path = someStorePath(1, store.storeDir)
    const { infos, asked, known } = await setUp()
    expect(await only(infos, path)).toBeNull()
    expect(await only(infos, path)).toBeNull()
    expect(asked).toHaveBeenCalledTimes(2)
    expect(known.get(path)).toBeUndefined()
  })
})

describe('many questions at once', () => {
  test('share one process', async () => {
    const paths = ['a', 'b', 'c', 'd'].map(addPath)
    const { infos, asked } = await setUp()
    const answers = await Promise.all(paths.map(path => only(infos, path)))
    expect(answers.map(info => info?.path)).toEqual(paths)
    expect(asked).toHaveBeenCalledTimes(1)
  })

  test('that come while one is answered share the next', async () => {
    const [first, ...others] = ['a', 'b', 'c', 'd'].map(addPath)
    const { infos, asked, nix } = await setUp()
    const { promise: started, resolve: start } = Promise.withResolvers<undefined>()
    const { promise: go, resolve: release } = Promise.withResolvers<undefined>()
    asked.mockImplementationOnce(async (...args) => {
      start(undefined)
      await go
      return NixCommand.prototype.pathInfo.apply(nix, args)
    })
    const answers = [only(infos, first ?? '')]
    await started
    answers.push(...others.map(path => only(infos, path)))
    release(undefined)
    expect((await Promise.all(answers)).map(info => info?.path)).toEqual([first, ...others])
    expect(asked).toHaveBeenCalledTimes(2)
  })

  test('do not fail each other', async () => {
    const path = addPath('image')
    const { infos } = await setUp()
    const [good, bad] = await Promise.allSettled([only(infos, path), infos.get(['/etc/passwd'])])
    expect(good).toMatchObject({ status: 'fulfilled', value: { path } })
    expect(bad).toMatchObject({ status: 'rejected', reason: { code: 'invalid-argument' } })
  })

  test('are each given up by themselves, and the process with the last of them', async () => {
    const path = addPath('image')
    const { infos, asked } = await setUp()
    const signals: AbortSignal[] = []
    const { promise: started, resolve: start } = Promise.withResolvers<undefined>()
    asked.mockImplementationOnce(async (_, { signal } = {}) => {
      if (signal !== undefined) signals.push(signal)
      start(undefined)
      return new Promise((_resolve, reject) => { signal?.addEventListener('abort', () => { reject(new NixError('killed', 'Cannot go on')) }) })
    })
    const [one, two] = [new AbortController(), new AbortController()]
    const asks = [infos.get([path], { signal: one.signal }), infos.get([path], { signal: two.signal })]
    for (const ask of asks) ask.catch(() => undefined)
    await started
    one.abort(new Error('one is gone'))
    await expect(asks[0]).rejects.toThrow('one is gone')
    expect(signals[0]?.aborted).toBe(false)
    two.abort(new Error('two is gone'))
    await expect(asks[1]).rejects.toThrow('two is gone')
    expect(signals[0]?.aborted).toBe(true)
    expect(await only(infos, path)).toMatchObject({ path })
  })
})

describe('the catalog\'s memory of paths', () => {
  test('forgets the oldest above its bound', async () => {
    const { knownPaths } = await openCatalog()
    const known = (seed: number) => ({ path: someStorePath(seed), stamp: 's', narHash: someHash(seed), narSize: seed, references: [someStorePath(9)], deriver: null, ca: null, signatures: ['a:1'], registrationTime: 7, ultimate: true })
    for (const seed of [1, 2, 3]) knownPaths.put([known(seed)], { most: 2 })
    expect([1, 2, 3].map(seed => knownPaths.get(someStorePath(seed)) !== undefined).filter(Boolean)).toHaveLength(2)
    knownPaths.put([known(4)], { most: 10 })
    expect(knownPaths.get(someStorePath(4))).toMatchObject({ narSize: 4, references: [someStorePath(9)], signatures: ['a:1'], registrationTime: 7, ultimate: true })
  })
})

test('the stamp of a path is that of its store only', () => {
  const path = addPath('image')
  settle()
  const here = new NixCommand({ logger: silentLogger }, { env: store.env })
  const elsewhere = new NixCommand({ logger: silentLogger }, { env: store.env, store: 'ssh://host' })
  expect(here.stamp(path)).not.toBeNull()
  expect(elsewhere.stamp(path)).toBeNull()
  expect(here.stamp(someStorePath(1, store.storeDir))).toBeNull()
  expect(readFileSync(path, 'utf8')).toBe('this is image')
})
