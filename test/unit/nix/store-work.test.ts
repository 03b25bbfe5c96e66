import { chmodSync, existsSync, mkdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/log.ts'
import { NixCommand } from '../../../src/nix/command.ts'
import { addRoots } from '../../../src/nix/roots.ts'
import { NixError, type NixFailure } from '../../../src/nix/nix-error.ts'
import { someStorePath } from '../../helpers/images.ts'
import { throwAwayStore, type ThrowAwayStore } from '../../helpers/nix-store.ts'

const FIXTURES = join(import.meta.dirname, '../../fixtures/bin')

let store: ThrowAwayStore
beforeEach(() => { store = throwAwayStore() })
afterEach(() => { store.remove() })

function nix(fixture?: string): NixCommand {
  return new NixCommand({ logger: silentLogger }, { env: store.env, ...fixture !== undefined && { binDir: join(FIXTURES, fixture) } })
}

async function kindOf(work: Promise<unknown>): Promise<NixFailure | undefined> {
  const error = await work.then(() => undefined, (reason: unknown) => reason)
  return error instanceof NixError ? error.kind : undefined
}

function build(): string {
  return store.run('nix-build', '--no-out-link', '-E', 'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }')
}

/** Registered with what another machine built, so that nothing but a signature can vouch for it. */
function receive(path: string): string {
  const other = throwAwayStore()
  try {
    store.run('sh', '-c', `nix-store --export ${path} > exported && nix-store --delete ${path} && nix-store --import < exported`)
    return path
  } finally {
    other.remove()
  }
}

function damage(path: string): void {
  chmodSync(path, 0o644)
  writeFileSync(path, 'other')
}

describe('nix store verify', () => {
  test('agrees with what was done to a path', async () => {
    const path = receive(build())
    expect(await nix().verify(path)).toMatchObject({ intact: true, trusted: false })
    const key = store.run('nix', 'key', 'generate-secret', '--key-name', 'fleet-1')
    store.run('nix', 'store', 'sign', '--key-file', store.file('key', key), path)
    const publicKey = store.run('sh', '-c', 'nix key convert-secret-to-public < key')
    expect(await nix().verify(path)).toMatchObject({ trusted: false })
    expect(await nix().verify(path, { keys: [publicKey] })).toMatchObject({ intact: true, trusted: true })
    damage(path)
    expect(await nix().verify(path, { keys: [publicKey] })).toMatchObject({ intact: false, trusted: true, said: expect.stringContaining('was modified') as string })
    expect(await nix().verify(path)).toMatchObject({ intact: false, trusted: false })
    expect(await nix().verify(path, { trust: false })).toMatchObject({ intact: false, trusted: null })
    expect(await nix().verify(path, { contents: false })).toMatchObject({ intact: null, trusted: false })
  })

  test('fails with a kind where it can not tell', async () => {
    build()
    const absent = someStorePath(1, store.storeDir)
    expect(await kindOf(nix().verify(absent))).toBe('not-valid')
    expect(await kindOf(nix('nix-that-is-refused').verify(absent))).toBe('permission')
    expect(await kindOf(nix('nix-too-old').verify(absent))).toBe('too-old')
    expect(await kindOf(nix('nix-that-crashes').verify(absent))).toBe('killed')
    expect(await kindOf(nix('no-such-directory').verify(absent))).toBe('missing')
  })
})

describe('a garbage-collector root', () => {
  test('is known to Nix as Narvik looks for it', async () => {
    const path = build()
    mkdirSync(join(store.root, 'roots'))
    const link = join(store.root, 'roots/a link')
    expect(await nix().hasRoot(link)).toBe(false)
    expect(await addRoots(nix(), [{ link, path }])).toEqual(new Map())
    expect(readlinkSync(link)).toBe(path)
    expect(await nix().hasRoot(link)).toBe(true)
    expect(store.run('nix-store', '--gc', '--print-roots')).toContain(`${link} -> ${path}`)
    // Adding it again changes nothing.
    expect(await addRoots(nix(), [{ link, path }])).toEqual(new Map())
    store.run('nix-collect-garbage')
    expect(existsSync(path)).toBe(true)
  })

  test('builds nothing, and is not made for what is not there', async () => {
    const path = build()
    const link = join(store.root, 'link')
    store.run('nix-store', '--delete', path)
    const failureOf = async (command: NixCommand, ...roots: { link: string, path: string }[]): Promise<unknown[]> => Array.from(await addRoots(command, roots), ([at, failure]) => [at, failure instanceof NixError ? failure.kind : failure.code])
    expect(await failureOf(nix(), { link, path })).toEqual([[link, 'not-valid']])
    expect([existsSync(path), existsSync(link)]).toEqual([false, false])
    await expect(addRoots(nix(), [{ link, path: '/etc/passwd' }])).rejects.toThrow(/Cannot read a store path/)
    expect(await failureOf(nix('no-such-directory'), { link, path })).toEqual([[link, 'missing']])
  })

  test('many are made over one connection, and one that can not be made is no hindrance for the others', async () => {
    const path = build()
    mkdirSync(join(store.root, 'many'))
    const roots = Array.from({ length: 20 }, (_, index) => ({ link: join(store.root, `many/${index}`), path }))
    const bad = [{ link: join(store.root, 'absent/link'), path }, { link: join(store.root, 'many/invalid'), path: someStorePath(1, store.storeDir) }]
    const failures = await addRoots(nix(), [...bad, ...roots])
    expect([...failures.keys()].toSorted()).toEqual(bad.map(({ link }) => link).toSorted())
    for (const { link } of roots) expect(await nix().hasRoot(link)).toBe(true)
  })

  test('of a derivation builds nothing', async () => {
    const path = build()
    const derivation = store.run('nix-store', '-q', '--deriver', path)
    store.run('nix-store', '--delete', path)
    const link = join(store.root, 'derivation')
    expect(await addRoots(nix(), [{ link, path: derivation }])).toEqual(new Map())
    expect([readlinkSync(link), existsSync(path)]).toEqual([derivation, false])
  })
})
