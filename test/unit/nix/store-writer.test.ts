import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { silentLogger } from '../../../src/log.ts'
import { dumpTree } from '../../../src/nar/dump.ts'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { NixCommand } from '../../../src/nix/command.ts'
import { NixError } from '../../../src/nix/nix-error.ts'
import { StoreWriter } from '../../../src/nix/store-writer.ts'
import type { Registration } from '../../../src/nix/worker/client.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const FIXTURES = join(import.meta.dirname, '../../fixtures/bin')

let store: ThrowAwayStore
beforeEach(() => { store = throwAwayStore() })
afterEach(() => { store.remove() })

function nix(fixture?: string): NixCommand {
  return new NixCommand({ logger: silentLogger }, { env: { ...store.env, PID_FILE: join(store.root, 'pids') }, killDelayMs: 100, ...fixture !== undefined && { binDir: join(FIXTURES, fixture) } })
}

/** A tree outside the store, and what it would be registered as. */
async function unregistered(contents = 'a file'): Promise<{ tree: string, info: Registration }> {
  const tree = store.file('tree', contents)
  const { narHash, narSize } = await hashTree(tree)
  return { tree, info: { path: `${store.storeDir}/${'0'.repeat(32)}-tree`, narHash, narSize, references: [], deriver: `${store.storeDir}/${'1'.repeat(32)}-tree.drv`, ca: null, signatures: ['nobody-1:AAAA'] } }
}

async function add(info: Registration, tree: string, { checkSignatures = false } = {}): Promise<void> {
  await StoreWriter.use(nix(), writer => writer.add(info, dumpTree(tree), { checkSignatures }))
}

test('what is registered is what the store then knows', async () => {
  const { tree, info } = await unregistered()
  await add(info, tree)
  expect(readFileSync(info.path, 'utf8')).toBe('a file')
  const known = (await nix().pathInfo([info.path])).get(info.path)
  expect(known).toMatchObject({ ...info, ultimate: false })
  expect(await StoreWriter.use(nix(), writer => writer.pathInfo(info.path))).toEqual(known)
})

const refused: readonly (readonly [string, (info: Registration) => Partial<Registration>, RegExp])[] = [
  ['another hash', () => ({ narHash: NarHash.fromBytes(Buffer.alloc(32)) }), /hash mismatch importing path/],
  ['another size', ({ narSize }) => ({ narSize: narSize + 8 }), /size mismatch importing path/],
  ['a reference that is not there', ({ path }) => ({ references: [`${path}-other`] }), /is not valid/],
  ['another content address', () => ({ ca: `fixed:r:sha256:${'0'.repeat(52)}` }), /refuses/],
]
test.each(refused)('what has %s is refused with the words of Nix, and is not there', async (_what, change, message) => {
  const { tree, info } = await unregistered()
  await expect(add({ ...info, ...change(info) }, tree)).rejects.toThrow(message)
  expect((await nix().pathInfo([info.path])).get(info.path)).toBeNull()
})

test('what nobody has signed is refused, and not read to its end', async () => {
  const { tree, info } = await unregistered()
  await expect(add(info, tree, { checkSignatures: true })).rejects.toThrow(/lacks a (?:valid )?signature/)
})

test('a tree that can not be read is no path', async () => {
  const { info } = await unregistered()
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(Buffer.alloc(100))
    throw new Error('the disk is gone')
  }
  await expect(StoreWriter.use(nix(), writer => writer.add(info, broken(), { checkSignatures: false }))).rejects.toThrow('the disk is gone')
  expect((await nix().pathInfo([info.path])).get(info.path)).toBeNull()
})

test('a store that is not there is not made', async () => {
  store.run('rmdir', store.storeDir)
  await expect(StoreWriter.use(nix(), () => Promise.resolve())).rejects.toThrow(/found no directory .*needed a Nix store/)
  expect(existsSync(store.storeDir)).toBe(false)
})

test.each([
  ['daemon-that-complains', 'permission', /nix-daemon said: error: cannot connect to socket .* Permission denied/],
  ['daemon-that-leaves', 'failed', /found (?:the end of what its daemon sends|its input closed)/],
  ['daemon-that-hangs', 'timed-out', /found no answer after 200 ms/],
  ['nix-of-today', 'missing', /no program .*nix-daemon/],
] as const)('behind a %s the error says so', async (fixture, kind, message) => {
  const error: unknown = await StoreWriter.use(nix(fixture), () => Promise.resolve(), { queryTimeoutMs: 200 }).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(NixError)
  expect(error).toMatchObject({ kind })
  expect(() => { throw error as NixError }).toThrow(message)
})

test('where the machine has a daemon, and it does not answer, the error says so', async () => {
  const remote = new NixCommand({ logger: silentLogger }, { env: { ...store.env, NIX_REMOTE: 'daemon' } })
  const error: unknown = await StoreWriter.use(remote, () => Promise.resolve()).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(NixError)
  expect(() => { throw error as NixError }).toThrow(/Cannot connect to the Nix daemon at .*var\/daemon-socket\/socket: found ENOENT/)
})

test('an abort ends the process, and throws its reason', async () => {
  const abort = new AbortController()
  const work = StoreWriter.use(nix('daemon-that-hangs'), () => Promise.resolve(), { signal: abort.signal })
  work.catch(() => undefined)
  const pids = join(store.root, 'pids')
  await vi.waitUntil(() => existsSync(pids) && readFileSync(pids, 'utf8').trim() !== '', { timeout: 20_000 })
  const reason = new Error('no longer')
  abort.abort(reason)
  await expect(work).rejects.toBe(reason)
  expect(existsSync(`/proc/${readFileSync(pids, 'utf8').trim()}/status`)).toBe(false)
})

test('a path that makes no progress is given up', async () => {
  const { info } = await unregistered()
  const { promise } = Promise.withResolvers<never>()
  const stuck = async function* (): AsyncGenerator<Uint8Array> {
    yield await promise
  }
  await expect(StoreWriter.use(nix(), writer => writer.add(info, stuck(), { checkSignatures: false }), { stallMs: 50 })).rejects.toThrow(/found no progress for 50 ms/)
})

test('a tree that is large is not held in memory by anybody', { timeout: 120_000 }, async () => {
  const tree = join(store.root, 'disk')
  writeFileSync(tree, '')
  store.run('truncate', '-s', '96M', tree)
  const { narHash, narSize } = await hashTree(tree)
  const { info } = await unregistered()
  let peak = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const bytes of dumpTree(tree)) {
      yield bytes
      peak = Math.max(peak, process.memoryUsage.rss())
    }
  }
  const before = process.memoryUsage.rss()
  await StoreWriter.use(nix(), writer => writer.add({ ...info, narHash, narSize }, counted(), { checkSignatures: false }))
  expect((peak - before) / 2 ** 20).toBeLessThan(80)
})
