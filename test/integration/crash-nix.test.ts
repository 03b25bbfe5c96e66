import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { crashEverywhere } from '../helpers/crashes.ts'
import { TestDaemon } from '../helpers/fleet.ts'
import { DERIVATION, twoStores, type RealStore, type TwoStores } from '../helpers/two-stores.ts'

const PATIENCE = { timeout: 1_200_000 }

it('an install that is killed at any step leaves the Nix store whole, and is done when asked for again', PATIENCE, async () => {
  const { stores, program, giver, narHash } = await giveProgram()
  const steps = await crashEverywhere({
    options: { env: stores.receiver.env, bootstrap: [giver] },
    before: async host => {
      await removeAll(host)
      await stores.receiver.run('nix-store', '--gc')
      expect(await isValid(stores.receiver, program)).toBe(false)
      await host.client.fetch({ ref: narHash, closure: true })
    },
    verb: host => host.client.install({ ref: narHash, closure: true }),
    // What Nix calls valid is what was proven; a part of a path is none.
    afterKill: async () => { await stores.receiver.run('nix-store', '--verify', '--check-contents') },
    after: async host => {
      await stores.receiver.run('nix', 'store', 'verify', '--recursive', program)
      expect(await readdir(join(host.dataDir, 'gcroots'))).toHaveLength(2)
      // What is installed stays: Nix knows the links.
      await stores.receiver.run('nix-store', '--gc')
      expect(await isValid(stores.receiver, program)).toBe(true)
    },
  })
  expect(steps).toContain('tell Nix')
})

it('the fetch of a closure that is killed at any step goes on by itself, dependencies first', PATIENCE, async () => {
  const { stores, giver, narHash } = await giveProgram()
  const steps = await crashEverywhere({
    options: { env: stores.receiver.env, bootstrap: [giver] },
    before: host => removeAll(host),
    verb: host => host.client.fetch({ ref: narHash, closure: true, name: 'program' }),
    afterKill: async host => {
      const images = await host.client.list()
      if (images.some(image => image.narHash === narHash && image.state === 'verified')) expect(images.map(({ state }) => state)).toEqual(['verified', 'verified'])
    },
    after: async host => { expect((await host.client.show('program')).closure).toMatchObject({ paths: 2, missing: [] }) },
  })
  expect(steps).toEqual(expect.arrayContaining([expect.stringContaining('wanted_closures')]))
})

interface Given {
  readonly stores: TwoStores
  readonly program: string
  readonly giver: TestDaemon
  readonly narHash: string
}

/** Two Nix stores, and a daemon beside the sender's that has a program with its closure. */
async function giveProgram(): Promise<Given> {
  const stores = await twoStores()
  const program = await build(stores)
  const giver = await TestDaemon.start({ env: stores.sender.env })
  const { narHash } = await giver.client.import({ path: program, closure: true })
  return { stores, program, giver, narHash }
}

/** What refers to a path that is its own content, and to itself; signed. */
async function build({ sender, secretKey }: TwoStores): Promise<string> {
  const expression = `
    let make = ${DERIVATION}; greeting = builtins.toFile "greeting.txt" "hello\\n";
    in make "program" "mkdir -p $out/bin; printf '#!/bin/sh\\ncat %s # %s' \${greeting} $out > $out/bin/run; chmod +x $out/bin/run"`
  const program = await sender.run('nix-build', '--no-out-link', '-E', expression)
  await sender.run('nix', 'store', 'sign', '--recursive', '--key-file', secretKey, program)
  return program
}

async function isValid(store: RealStore, path: string): Promise<boolean> {
  return store.run('nix-store', '--check-validity', path).then(() => true, () => false)
}

async function removeAll(host: TestDaemon): Promise<void> {
  for (const image of await host.client.list()) await host.client.remove(image.narHash)
}
