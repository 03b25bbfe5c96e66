import { execa } from 'execa'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { startFleet, temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { nixHashPath } from '../helpers/real-nix.ts'

/** A real Nix store of its own, with what a daemon needs in its environment to find it. */
async function makeStore(): Promise<{ env: Record<string, string>, dir: string }> {
  const root = await temporaryDirectory()
  const env = {
    NIX_STORE_DIR: join(root, 'store'), NIX_STATE_DIR: join(root, 'state'), NIX_LOG_DIR: join(root, 'log'), NIX_CONF_DIR: join(root, 'etc'),
    NIX_LOCALSTATE_DIR: join(root, 'var'), NIX_CONFIG: 'experimental-features = nix-command', NIX_REMOTE: '', HOME: root,
  }
  await mkdir(env.NIX_STORE_DIR)
  return { env, dir: root }
}

/** Two store paths, the second of which refers to the first and to nothing else. */
async function addPathWithReference({ env }: { env: Record<string, string> }): Promise<{ path: string, reference: string }> {
  const expression = `
    let greeting = builtins.toFile "greeting.txt" "hello\\n";
    in builtins.toFile "with-ref" "see \${greeting}\\n"`
  const { stdout } = await execa('nix-instantiate', ['--eval', '--strict', '--json', '--read-write-mode', '-E', expression], { env })
  const path = JSON.parse(stdout) as string
  const { stdout: references } = await execa('nix-store', ['-q', '--references', path], { env })
  return { path, reference: references.trim() }
}

describe('a real Nix store', () => {
  it('gives a store path\'s references, content address and hash, and the tree stays where it is', async () => {
    const store = await makeStore()
    const { path, reference } = await addPathWithReference(store)
    const [a, b] = await startFleet(2, { env: store.env })
    const image = await a.json<ImageJson>('import', path)
    expect(image).toMatchObject({ state: 'verified', storePath: path, references: [reference], path, narHash: await nixHashPath(path), note: null })
    expect(image.ca).toMatch(/^text:sha256:/)
    const fetched = await b.json<ImageJson>('fetch', image.narHash)
    expect(fetched).toMatchObject({ state: 'verified', storePath: path, references: [reference], ca: image.ca })
    expect(fetched.path).toContain(b.dataDir)
    const dest = join(store.dir, 'exported')
    await b.json('export', path, dest)
    expect(await nixHashPath(dest)).toBe(image.narHash)
    // Removing it leaves the store path, which is Nix's.
    await a.json('rm', path)
    expect(await nixHashPath(path)).toBe(image.narHash)
  })

  it('takes in a tree from outside, and a link to a store path stands for the path', async () => {
    const store = await makeStore()
    const { path } = await addPathWithReference(store)
    const host = await TestDaemon.start({ env: { ...store.env, NARVIK_NIX_STORE_ADD_MAX_BYTES: '1048576' } })
    await writeFile(join(store.dir, 'tree'), 'a tree')
    const added = await host.json<ImageJson>('import', join(store.dir, 'tree'))
    expect(added.storePath).toMatch(new RegExp(`^${store.env['NIX_STORE_DIR'] ?? ''}/[0-9a-z]{32}-tree$`))
    await symlink(path, join(store.dir, 'result'))
    expect(await host.json<ImageJson>('import', join(store.dir, 'result'))).toMatchObject({ storePath: path })
  })

  const broken: [string, Record<string, string>, string | null, RegExp][] = [
    ['missing', { NARVIK_NIX_BIN_DIR: '/nonexistent' }, null, /found no/],
    ['hanging', { NARVIK_NIX_QUERY_TIMEOUT_SECONDS: '1' }, 'nix-that-hangs', /in 1 s|1000 ms|answer/],
    ['lying', {}, 'nix-that-lies', /found .* as a path, needed a store path/],
    ['too old', {}, 'nix-too-old', /needed/],
    ['without the feature', {}, 'nix-without-feature', /nix-command/],
    ['turned off', { NARVIK_NIX_ENABLED: 'false' }, null, /turned off/],
  ]
  it.each(broken)('behind a Nix that is %s still gives its images', async (_how, env, program, note) => {
    const store = await makeStore()
    const { path } = await addPathWithReference(store)
    const bin = program === null ? {} : { NARVIK_NIX_BIN_DIR: await binDirWith(program) }
    const host = await TestDaemon.start({ env: { ...store.env, ...bin, ...env } })
    const image = await host.json<ImageJson>('import', path)
    expect(image).toMatchObject({ state: 'verified', storePath: null, references: [], narHash: await nixHashPath(path) })
    expect(image.note).toMatch(note)
    expect(image.path).toContain(host.dataDir)
  })
})

/** A directory in which `nix` is a program that misbehaves. */
async function binDirWith(program: string): Promise<string> {
  const dir = await temporaryDirectory()
  await symlink(new URL(`../fixtures/bin/${program}/nix`, import.meta.url).pathname, join(dir, 'nix'))
  return dir
}
