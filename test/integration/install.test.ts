import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { ImageJson, InstallResultJson } from '../../src/control/api.ts'
import { TestDaemon, until } from '../helpers/fleet.ts'
import { DERIVATION, twoStores, type RealStore, type TwoStores } from '../helpers/two-stores.ts'

it('what was fetched is registered in another store, exactly as it is in the first', async () => {
  const stores = await twoStores()
  const [greeting, program] = await build(stores)
  const { a, b } = await twoHosts(stores)
  for (const path of [greeting, program]) await b.json('fetch', (await a.json<ImageJson>('import', path)).narHash)

  const early = await b.run('install', program)
  expect(early).toMatchObject({ exitCode: 1, stdout: '' })
  expect(early.stderr).toContain(`Cannot install ${program}: found 1 of its 1 references missing in the Nix store (${greeting})`)
  expect(await isValid(stores.receiver, program)).toBe(false)

  expect(await b.json<InstallResultJson>('install', greeting)).toEqual({ storePath: greeting, added: [greeting] })
  expect(await b.json<InstallResultJson>('install', program)).toEqual({ storePath: program, added: [program] })
  expect(await b.json<InstallResultJson>('install', program)).toEqual({ storePath: program, added: [] })

  expect(await closure(stores.receiver, program)).toEqual(await closure(stores.sender, program))
  await stores.receiver.run('nix', 'store', 'verify', '--recursive', program)
})

it('what nobody trusted has signed is registered only on demand', async () => {
  const stores = await twoStores()
  const [greeting, program] = await build(stores, { signed: false })
  const { a, b } = await twoHosts(stores)
  await b.json('fetch', (await a.json<ImageJson>('import', greeting)).narHash)
  const { narHash } = await a.json<ImageJson>('import', program)
  await b.json('fetch', narHash)

  // Its content address proves it.
  await b.json('install', greeting)
  expect((await b.run('install', program)).exitCode).toBe(4)
  const refused = await b.run('install', narHash)
  expect(refused.exitCode).toBe(6)
  expect(refused.stderr).toContain('found neither a signature by a key that Nix trusts nor a content address')
  expect(await isValid(stores.receiver, program)).toBe(false)
  expect(await b.json('install', narHash, '--no-check-sigs')).toMatchObject({ added: [program] })
  await stores.receiver.run('nix', 'store', 'verify', '--no-trust', '--recursive', program)

  // Signed later, on the sender: the signature follows.
  await stores.sender.run('nix', 'store', 'sign', '--key-file', stores.secretKey, program)
  await a.json('rm', program)
  await b.json('rm', narHash)
  await b.json('fetch', (await a.json<ImageJson>('import', program)).narHash)
  expect(await b.json('install', program)).toEqual({ storePath: program, added: [] })
  await stores.receiver.run('nix', 'store', 'verify', program)
})

it('says why it does not install what belongs to no store, or to another one', async () => {
  const stores = await twoStores()
  const [greeting] = await build(stores)
  const { a, b } = await twoHosts(stores)
  await writeFile(join(stores.dir, 'tree'), 'a tree')
  const tree = await a.json<ImageJson>('import', join(stores.dir, 'tree'))
  const none = await a.run('install', tree.narHash)
  expect(none).toMatchObject({ exitCode: 1 })
  expect(none.stderr).toContain('found no store path in its metadata')

  const { narHash } = await a.json<ImageJson>('import', greeting)
  const elsewhere = await TestDaemon.start({ bootstrap: [a], env: { ...stores.receiver.env, NIX_STORE_DIR: join(stores.dir, 'elsewhere') } })
  await elsewhere.untilPeers(1)
  await elsewhere.json('fetch', narHash)
  const other = await elsewhere.run('install', narHash)
  expect(other).toMatchObject({ exitCode: 6 })
  expect(other.stderr).toContain(`found it in another store directory, needed ${join(stores.dir, 'elsewhere')}`)

  const off = await TestDaemon.start({ bootstrap: [a], env: { ...stores.receiver.env, NARVIK_NIX_ENABLED: 'false' } })
  await off.untilPeers(1)
  await off.json('fetch', narHash)
  expect((await off.run('install', narHash)).stderr).toContain('found Nix turned off in the config')
  expect((await b.run('install', narHash)).exitCode).toBe(4)
})

/** A path that is its own content, and one that was built, refers to it and to itself. */
async function build({ sender, secretKey }: TwoStores, { signed = true } = {}): Promise<[greeting: string, program: string]> {
  const expression = `
    let make = ${DERIVATION}; greeting = builtins.toFile "greeting.txt" "hello\\n";
    in make "program" "mkdir -p $out/bin; printf '#!/bin/sh\\ncat %s # %s' \${greeting} $out > $out/bin/run; chmod +x $out/bin/run; ln -s run $out/bin/alias"`
  const program = await sender.run('nix-build', '--no-out-link', '-E', expression)
  if (signed) await sender.run('nix', 'store', 'sign', '--recursive', '--key-file', secretKey, program)
  const references = (await sender.run('nix-store', '--query', '--references', program)).split('\n')
  const [greeting = ''] = references.filter(path => path !== program)
  expect(references).toEqual(expect.arrayContaining([greeting, program]))
  return [greeting, program]
}

async function twoHosts({ sender, receiver }: TwoStores): Promise<{ a: TestDaemon, b: TestDaemon }> {
  const a = await TestDaemon.start({ env: sender.env })
  const b = await TestDaemon.start({ env: receiver.env, bootstrap: [a] })
  await Promise.all([a, b].map(daemon => daemon.untilPeers(1)))
  return { a, b }
}

/** What Nix says of a closure, but for what is each store's own: when it was registered, and whether it was built there. */
async function closure(store: RealStore, path: string): Promise<unknown> {
  const infos = JSON.parse(await store.run('nix', 'path-info', '--json', '--recursive', path)) as Record<string, unknown>[]
  expect(infos.length).toBeGreaterThan(1)
  return infos.map(info => Object.fromEntries(Object.entries(info).filter(([field]) => field !== 'registrationTime' && field !== 'ultimate')))
}

async function isValid(store: RealStore, path: string): Promise<boolean> {
  return store.run('nix-store', '--check-validity', path).then(() => true, () => false)
}

it('what was damaged on Narvik\'s disk is found out, whoever notices, and is no longer verified', async () => {
  const stores = await twoStores()
  const { a, b } = await twoHosts(stores)
  const change: Record<string, (path: string) => Promise<void>> = {
    altered: path => writeFile(path, 'ALTERED\n'),
    shorter: path => writeFile(path, 'less\n'),
  }
  for (const [name, damage] of Object.entries(change)) {
    const path = await stores.sender.run('nix-instantiate', '--eval', '--strict', '--json', '--read-write-mode', '-E', `builtins.toFile "${name}" "${name}\\n"`)
    const { narHash } = await a.json<ImageJson>('import', JSON.parse(path) as string)
    const image = await b.json<ImageJson>('fetch', narHash)
    await a.json('rm', narHash)
    await chmod(image.path ?? '', 0o644)
    await damage(image.path ?? '')
    await chmod(image.path ?? '', 0o444)
    const failed = await b.run('install', narHash)
    expect(failed.exitCode).toBe(1)
    expect(failed.stderr).toMatch(name === 'altered' ? /hash mismatch importing path/ : /needed one of 8 bytes/)
    await until(async () => (await b.json<ImageJson>('show', narHash)).state === 'rejected', `${name} to be rejected`)
    expect(await isValid(stores.receiver, JSON.parse(path) as string)).toBe(false)
  }
})
