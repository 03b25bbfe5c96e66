import { createServer } from 'node:http'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { NixCommand, type NixCommandInit } from '../../../src/nix/command.ts'
import { NixError, type NixFailure } from '../../../src/nix/nix-error.ts'
import { silentLogger } from '../../../src/log.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const FIXTURES = join(import.meta.dirname, '../../fixtures/bin')
const HASH_PART = '0'.repeat(32)

let store: ThrowAwayStore
beforeEach(() => { store = throwAwayStore() })
afterEach(() => { store.remove() })

function nix(fixture: string | undefined, init: NixCommandInit = {}): NixCommand {
  const env = { ...store.env, PID_FILE: join(store.root, 'pids'), COUNT_FILE: join(store.root, 'count'), ...init.env }
  return new NixCommand({ logger: silentLogger }, { ...init, env, ...fixture !== undefined && { binDir: join(FIXTURES, fixture) } })
}

function path(name = 'image'): string {
  return `${store.storeDir}/${HASH_PART}-${name}`
}

async function failure(work: Promise<unknown>): Promise<NixError> {
  const error = await work.then(() => undefined, (reason: unknown) => reason)
  if (error instanceof NixError) return error
  throw new Error('Expected a NixError', { cause: error })
}

/** The processes that a fixture wrote down; empty until it did. */
function pids(): number[] {
  const file = join(store.root, 'pids')
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split(/\s+/).filter(text => text !== '').map(Number) : []
}

function isRunning(pid: number): boolean {
  try {
    // A dead process may keep its number until somebody asks how it ended.
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** What a fixture wrote down. */
function lines(): string[] {
  const file = join(store.root, 'count')
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : []
}

describe('a Nix that fails', () => {
  const cases: [fixture: string, kind: NixFailure, message: RegExp][] = [
    ['nix-that-lies', 'bad-output', /found "[^"]*-other" as a path, needed a store path in/],
    ['nix-too-old', 'too-old', /found version 2\.3\.16, needed 2\.4 or newer/],
    ['nix-without-feature', 'feature-disabled', /found exit code 1 and error: experimental Nix feature 'nix-command' is disabled/],
    ['nix-that-floods', 'bad-output', /found more than 4096 bytes of output, needed less/],
    ['nix-that-floods-stderr', 'bad-output', /found more than 4096 bytes of output/],
    ['nix-that-crashes', 'killed', /found that SIGSEGV ended it \(it said: terminate called/],
    ['nix-that-is-refused', 'permission', /Permission denied/],
    ['nix-that-babbles', 'bad-output', /found "welcome to the machine\\n" as its version/],
    ['nix-that-mumbles', 'bad-output', /found bytes that are not UTF-8/],
    ['no-such-directory', 'missing', /found no program .*no-such-directory\/nix/],
  ]
  test.each(cases)('%s: %s', async (fixture, kind, message) => {
    const error = await failure(nix(fixture, { maxOutputBytes: 4096 }).pathInfo([path()]))
    expect(error.kind).toBe(kind)
    expect(error.code).toBe('nix-failed')
    expect(error.message).toMatch(message)
    expect(error.message).toMatch(/^Cannot .*: found .*, needed .*/)
  })

  test('a program that may not be run', async () => {
    mkdirSync(join(store.root, 'bin'))
    writeFileSync(join(store.root, 'bin/nix'), '#!/bin/sh\n', { mode: 0o644 })
    const error = await failure(nix(undefined, { binDir: join(store.root, 'bin') }).pathInfo([path()]))
    expect(error.kind).toBe('permission')
  })

  const lies: [what: string, answer: (asked: string) => string][] = [
    ['nothing', () => ' '],
    ['half a document', asked => `[{"path":"${asked}"`],
    ['no entry', () => '[]'],
    ['another path', () => `[{"path":"${path('other')}","valid":false}]`],
    ['one path too many', asked => `{"${asked}":null,"${path('other')}":null}`],
    ['a hash of another kind', asked => `{"${asked}":{"narHash":"sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=","narSize":1,"references":[]}}`],
    ['a document of the future', () => '{"version":9,"storeDir":"/nix/store","info":{}}'],
  ]
  test.each(lies)('an answer that is %s', async (_, answer) => {
    const error = await failure(nix('nix-that-lies', { env: { ANSWER: answer(path()) } }).pathInfo([path()]))
    expect(error.kind).toBe('bad-output')
  })

  test.each(['', 'hello', '/etc/passwd', '/nix/store/imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-image', 'STORE/imrarw0j2sg12z7i4mn3mjjfh2fpgz1c-other'])('an addition that is answered with %j', async answer => {
    const error = await failure(nix('nix-that-lies', { env: { ANSWER: answer.replace('STORE', store.storeDir) } }).addPath('/tmp', 'image'))
    expect(error.kind).toBe('bad-output')
  })

  test('a store that refuses cannot be written', async () => {
    expect(await nix('nix-that-is-refused').canWriteStore()).toBe(false)
    expect(await nix('nix-that-counts').canWriteStore()).toBe(true)
  })

  test('probe says why there is no Nix to use, and does not throw', async () => {
    expect(await nix('nix-too-old').probe()).toEqual({ available: false, reason: expect.stringContaining('2.3.16') as string })
    expect(await nix('no-such-directory').probe()).toMatchObject({ available: false })
    expect(await nix('nix-of-today', { env: { PRODUCT: 'Lix, like Nix', VERSION: '2.91.0' } }).probe()).toEqual({ available: true, version: '2.91.0', flavour: 'lix' })
  })
})

describe('a Nix that does not end', () => {
  test('is asked to end when its time is over', async () => {
    const error = await failure(nix('nix-that-hangs', { queryTimeoutMs: 1500 }).pathInfo([path()]))
    expect(error).toMatchObject({ kind: 'timed-out', code: 'timed-out' })
    await vi.waitFor(() => { expect(pids().some(isRunning)).toBe(false) })
  })

  test('is killed with its children when it clings to life', async () => {
    const aborted = new AbortController()
    const asked = nix('nix-that-clings', { killDelayMs: 100 }).pathInfo([path()], { signal: aborted.signal })
    asked.catch(() => undefined)
    await vi.waitFor(() => { expect(pids()).toHaveLength(2) }, { timeout: 20_000 })
    expect(pids().every(isRunning)).toBe(true)
    aborted.abort(new Error('enough'))
    await expect(asked).rejects.toThrow('enough')
    await vi.waitFor(() => { expect(pids().some(isRunning)).toBe(false) }, { timeout: 20_000 })
  })

  test('is given up when what it left behind can not be reached', async () => {
    const aborted = new AbortController()
    const asked = nix('nix-that-escapes', { killDelayMs: 100 }).pathInfo([path()], { signal: aborted.signal })
    asked.catch(() => undefined)
    await vi.waitFor(() => { expect(pids()).toHaveLength(1) }, { timeout: 20_000 })
    aborted.abort(new Error('enough'))
    await expect(asked).rejects.toThrow('enough')
    for (const pid of pids()) process.kill(pid, 'SIGKILL')
  })

  test('an aborted signal starts nothing', async () => {
    const signal = AbortSignal.abort(new Error('stopped'))
    await expect(nix('nix-that-counts').pathInfo([path()], { signal })).rejects.toThrow('stopped')
    expect(existsSync(join(store.root, 'count'))).toBe(false)
  })
})

describe('questions', () => {
  test('many paths are asked about in few processes', async () => {
    const paths = Array.from({ length: 1200 }, (_, index) => path(`image-${index}`))
    const infos = await nix('nix-that-counts').pathInfo([...paths, ...paths])
    expect([...infos.keys()]).toEqual(paths)
    expect(lines().sort()).toEqual(['176', '512', '512'])
  })

  test('many questions share few processes, and do not wait for what is being added', async () => {
    const command = nix('nix-that-waits', { env: { GATE: join(store.root, 'gate') } })
    for (const subcommand of ['path-info', 'store']) store.run('mkfifo', join(store.root, `gate.${subcommand}`))
    // Open for both, so that neither end waits for the other.
    const gate = openSync(join(store.root, 'gate.path-info'), 'r+')
    const aborted = new AbortController()
    const additions = Array.from({ length: 5 }, () => command.addPath('/tmp', 'x', { signal: aborted.signal }).catch(() => undefined))
    await vi.waitFor(() => { expect(lines()).toEqual(['start store', 'start store']) }, { timeout: 20_000 })
    const answers = Array.from({ length: 12 }, (_, index) => command.pathInfo([path(`image-${index}`)]))
    await vi.waitFor(() => { expect(lines().length).toBeGreaterThanOrEqual(6) }, { timeout: 20_000 })
    writeSync(gate, '\n'.repeat(12))
    await Promise.all(answers)
    let running = 0
    let most = 0
    for (const line of lines().filter(text => text.endsWith('path-info'))) {
      running += line.startsWith('start') ? 1 : -1
      most = Math.max(most, running)
    }
    expect([running, most]).toEqual([0, 4])
    expect(lines().filter(line => line === 'start store')).toHaveLength(2)
    aborted.abort()
    await Promise.all(additions)
    closeSync(gate)
  })

  test('the format is asked for where Nix knows it', async () => {
    expect(await nix('nix-of-today').pathInfo([path()])).toEqual(new Map([[path(), null]]))
    expect((await failure(nix('nix-of-today', { env: { PRODUCT: 'Lix, like Nix', VERSION: '2.93.0' } }).pathInfo([path()]))).kind).toBe('failed')
  })

  test('a Nix that was replaced is asked for its version again', async () => {
    const bin = join(store.root, 'bin')
    mkdirSync(bin)
    const use = (fixture: string): void => {
      store.run('ln', '-sfn', join(FIXTURES, fixture, 'nix'), join(bin, 'nix'))
    }
    use('nix-of-today')
    const command = nix(undefined, { binDir: bin })
    expect((await command.pathInfo([path()])).get(path())).toBeNull()
    use('nix-too-old')
    expect((await failure(command.pathInfo([path()]))).kind).toBe('too-old')
    expect((await failure(command.pathInfo([path()]))).message).toContain('2.3.16')
  })

  test('that was used and is gone can be used no more', async () => {
    const bin = join(store.root, 'bin')
    mkdirSync(bin)
    symlinkSync(join(FIXTURES, 'nix-that-counts/nix'), join(bin, 'nix'))
    const command = nix(undefined, { binDir: bin })
    expect((await command.pathInfo([path()])).get(path())).toBeNull()
    store.run('rm', join(bin, 'nix'))
    expect(await command.probe()).toMatchObject({ available: false })
  })

  test('is asked for its version once, until another program takes its place', async () => {
    const bin = join(store.root, 'bin')
    mkdirSync(bin)
    const use = (version: string): void => {
      const program = join(bin, `nix-${version}`)
      writeFileSync(program, `#!/bin/sh\necho asked >> "$COUNT_FILE"\necho 'nix (Nix) ${version}'\n`, { mode: 0o755 })
      store.run('ln', '-sfn', program, join(bin, 'nix'))
    }
    use('2.8.0')
    const command = nix(undefined, { binDir: bin })
    for (let time = 0; time < 3; time++) expect(await command.probe()).toMatchObject({ version: '2.8.0' })
    expect(lines()).toEqual(['asked'])
    use('2.31.2')
    for (let time = 0; time < 3; time++) expect(await command.probe()).toMatchObject({ version: '2.31.2' })
    expect(lines()).toHaveLength(2)
    store.run('rm', join(bin, 'nix'))
    expect(await command.probe()).toMatchObject({ available: false, reason: expect.stringContaining('found no program') as string })
    use('2.31.2')
    expect(await command.probe()).toMatchObject({ version: '2.31.2' })
  })

  test.each(['/tmp', 'image', '/nix/store/../../etc/passwd', '--help', ''])('%j is not asked about', async text => {
    await expect(nix('nix-that-counts').pathInfo([text])).rejects.toMatchObject({ code: 'invalid-argument' })
  })
})

describe('the real Nix', () => {
  test('has a version', async () => {
    expect(await nix(undefined).probe()).toMatchObject({ available: true })
  })

  test('takes a tree and tells of it', async () => {
    const command = nix(undefined)
    mkdirSync(join(store.root, 'tree'))
    store.file('tree/a', 'hello\n')
    symlinkSync('a', join(store.root, 'tree/link'))
    expect(await command.canWriteStore()).toBe(true)
    const added = await command.addPath(join(store.root, 'tree'), 'my-tree+1.0_x?=')
    const infos = await command.pathInfo([path(), added])
    expect(infos.get(path())).toBeNull()
    expect(infos.get(added)).toMatchObject({ path: added, references: [], deriver: null, signatures: [], ultimate: false })
    expect(infos.get(added)?.narHash.toSri()).toBe(store.run('nix', 'hash', 'path', added))
    expect(infos.get(added)?.ca).toBe(`fixed:r:sha256:${infos.get(added)?.narHash.toNix32() ?? ''}`)
  })

  test('does not look for a path in the network', async () => {
    const requests: (string | undefined)[] = []
    const server = createServer((request, response) => {
      requests.push(request.url)
      response.writeHead(404).end()
    })
    await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
    try {
      const { port } = server.address() as AddressInfo
      const NIX_CONFIG = `substituters = http://127.0.0.1:${port}`
      expect((await nix(undefined, { env: { NIX_CONFIG } }).pathInfo([path()])).get(path())).toBeNull()
      expect(requests).toEqual([])
    } finally {
      server.close()
    }
  })

  test('tells of a derivation itself, of its references and its deriver', async () => {
    const expression = 'derivation { name = "image"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.toFile "part" "x"} > $out" ]; }'
    const drv = store.run('nix-instantiate', '-E', expression)
    const out = store.run('nix-store', '--realise', drv)
    const infos = await nix(undefined).pathInfo([drv, out])
    expect(infos.get(drv)?.path).toBe(drv)
    expect(infos.get(drv)?.ca).toMatch(/^text:sha256:/)
    expect(infos.get(out)).toMatchObject({ path: out, deriver: drv, ultimate: true, ca: null })
    expect(infos.get(out)?.references).toEqual([expect.stringMatching(/-part$/)])
  })

  test('does not make a store in order to answer', async () => {
    const storeDir = join(store.root, 'absent')
    const command = nix(undefined, { env: { NIX_STORE_DIR: storeDir } })
    const asked = `${storeDir}/${HASH_PART}-image`
    expect(await command.pathInfo([asked])).toEqual(new Map([[asked, null]]))
    expect(await command.canWriteStore()).toBe(false)
    expect((await failure(command.addPath(store.file('f', 'x'), 'f'))).kind).toBe('missing')
    expect(existsSync(storeDir)).toBe(false)
  })

  test('a store in another directory has paths of its own', async () => {
    const root = join(store.root, 'elsewhere')
    const env = Object.fromEntries(Object.entries(store.env).filter(([name]) => !/^NIX_(STORE|STATE|LOG)_DIR$/.test(name)))
    const command = new NixCommand({ logger: silentLogger }, { env, store: root })
    const asked = `/nix/store/${HASH_PART}-image`
    expect(await command.pathInfo([asked])).toEqual(new Map([[asked, null]]))
    mkdirSync(join(root, 'nix/store'), { recursive: true })
    const added = await command.addPath(store.file('f', 'x'), 'f')
    expect(added).toMatch(/^\/nix\/store\/[0-9a-z]{32}-f$/)
    expect(existsSync(join(root, added))).toBe(true)
    expect((await command.pathInfo([added])).get(added)?.path).toBe(added)
  })

  test('says what is wrong with a tree that it does not take', async () => {
    store.run('mkfifo', join(store.root, 'fifo'))
    const error = await failure(nix(undefined).addPath(join(store.root, 'fifo'), 'fifo'))
    expect(error.kind).toBe('failed')
    expect(error.message).toContain('has an unsupported type')
  })

  test.each(['', '.', '..', '.-a', 'a/b', 'a b', 'ä', '212'])('the name %j is refused before Nix is run', async text => {
    const name = text === '212' ? 'x'.repeat(212) : text
    await expect(nix(undefined).addPath(store.file('f', 'x'), name)).rejects.toMatchObject({ code: 'invalid-argument' })
  })

  test.each(['-a', '--help', '+', '=', '?', '.a', '211'])('the name %j is a name', async text => {
    const name = text === '211' ? 'x'.repeat(211) : text
    expect(await nix(undefined).addPath(store.file('f', 'x'), name)).toMatch(/\/[0-9a-z]{32}-/)
  })
})
