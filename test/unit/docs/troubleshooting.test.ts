import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest'
import { messageOf } from '../../../src/errors.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import type { NixPathInfo } from '../../../src/image/path-info.ts'
import { silentLogger } from '../../../src/log.ts'
import { dumpTree } from '../../../src/nar/dump.ts'
import { NixCommand } from '../../../src/nix/command.ts'
import { StoreWriter } from '../../../src/nix/store-writer.ts'
import type { TaskContext } from '../../../src/tasks/context.ts'
import { askNix, checkFacts } from '../../../src/tasks/nix-facts.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const ROOT = join(import.meta.dirname, '../../..')
const FIXTURES = join(ROOT, 'test/fixtures/bin')

/** The messages of the troubleshooting part of docs/NIX.md, as they are written there. */
const documented = readFileSync(join(ROOT, 'docs/NIX.md'), 'utf8').split('## Troubleshooting')[1]?.split('\n').slice(4)
  .flatMap(line => (line.split(' | ')[0] ?? '').match(/`[^`]{20,}`/g) ?? []).map(span => span.slice(1, -1)) ?? []

/** What stands for something else in them. */
const STAND_INS = /sha256-…|'…'|…|PATH2?\b|PEER|SOCKET|E[A-Z]+\b|\d+|\/nix\/store|fleet-\d/

/** Where the code may put a message together. */
const SEAMS = /[:(),] ?|\bit\b|Cannot$|incomplete/

function pattern(message: string): RegExp {
  return new RegExp(message.split(STAND_INS).map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*'), 's')
}

let store: ThrowAwayStore
beforeEach(() => { store = throwAwayStore() })
afterEach(() => { store.remove() })

function nix(fixture?: string): NixCommand {
  return new NixCommand({ logger: silentLogger }, { env: store.env, ...fixture !== undefined && { binDir: join(FIXTURES, fixture) } })
}

async function failure(work: Promise<unknown>): Promise<string> {
  return work.then(() => 'nothing failed', messageOf)
}

function addPath(): string {
  return store.run('nix', 'store', 'add-path', store.file('image', 'an image'))
}

async function infoOf(path: string): Promise<NixPathInfo> {
  const info = (await nix().pathInfo([path])).get(path)
  if (info === undefined || info === null) throw new Error(`${path} is not valid`)
  return info
}

const provoked: Record<string, readonly [start: string, provoke: () => Promise<string | null>]> = {
  'an experimental feature that is off': ['Cannot run nix path-info', async () => {
    addPath()
    return failure(nix('nix-without-feature').pathInfo([someStorePath(1, store.storeDir)]))
  }],
  'a path that is not in the store': ['Nix says that the path is not valid', async () => {
    addPath()
    const path = someStorePath(1, store.storeDir)
    writeFileSync(path, 'copied there by hand')
    const parts = { nix: nix(), pathInfos: { get: (paths: readonly string[]) => nix().pathInfo(paths) }, logger: silentLogger, settings: { useNix: true } }
    return (await askNix(parts as unknown as TaskContext, path, undefined)).note
  }],
  'a path whose bytes are others': ['Nix says that PATH is', async () => {
    const info = await infoOf(addPath())
    return checkFacts({ info, note: null }, { narHash: someHash(1), narSize: info.narSize } as Parameters<typeof checkFacts>[1]).note
  }],
  'a hash mismatch': ['Cannot register PATH', async () => {
    const info = await infoOf(addPath())
    store.run('nix-store', '--delete', info.path)
    return failure(StoreWriter.use(nix(), writer => writer.add({ ...info, narHash: NarHash.fromBytes(Buffer.alloc(32)) }, dumpTree(join(store.root, 'image')), { checkSignatures: false })))
  }],
  'a daemon that this user may not use': ['nix-daemon said', () => failure(StoreWriter.use(nix('daemon-that-complains'), () => Promise.resolve()))],
  'a Nix that this user may not use': ['error: cannot connect to socket', () => {
    addPath()
    return failure(nix('nix-that-is-refused').pathInfo([someStorePath(1, store.storeDir)]))
  }],
  'a Nix store that is not there': ['Cannot write to the Nix store', () => {
    store.run('rmdir', store.storeDir)
    return failure(StoreWriter.use(nix(), () => Promise.resolve()))
  }],
}

describe('the troubleshooting part has the very message of', () => {
  it.each(Object.entries(provoked))('%s', async (_, [start, provoke]) => {
    const message = documented.find(each => each.startsWith(start)) ?? 'none'
    expect(await provoke()).toMatch(pattern(message))
  })
})

test('every other message in it is one that the code has', () => {
  const dir = join(ROOT, 'src')
  const source = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts')).map(name => readFileSync(join(dir, name), 'utf8')).join('\n').replaceAll("\\'", "'")
  const starts = Object.values(provoked).map(([start]) => start)
  // Nix itself says it, and only an older one does.
  const others = documented.filter(message => !starts.some(start => message.startsWith(start)) && message !== 'you are not privileged to add signatures')
  expect(others.length).toBeGreaterThan(10)
  const strange = others.flatMap(message => message.split(STAND_INS).flatMap(part => part.split(SEAMS)).filter(part => !source.includes(part)).map(part => `${part} (of: ${message})`))
  expect(strange).toEqual([])
})
