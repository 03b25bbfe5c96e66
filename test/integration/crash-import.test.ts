import { chmod, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { crashEverywhere } from '../helpers/crashes.ts'
import { temporaryDirectory, type TestDaemon } from '../helpers/fleet.ts'
import { throwAwayStore } from '../helpers/nix-store.ts'

/** Images in a row are killed in as many daemons, one after the other. */
const PATIENCE = { timeout: 1_200_000 }

it('an import that is killed at any step is done or was never begun', PATIENCE, async () => {
  const dir = await temporaryDirectory()
  await makeTree(join(dir, 'tree'))
  await writeFile(join(dir, 'other'), 'other')
  const steps = await crashEverywhere({
    prepare: async host => { await host.client.import({ path: join(dir, 'other'), name: 'other' }) },
    before: host => removeAll(host, 'it'),
    verb: host => host.client.import({ path: join(dir, 'tree'), name: 'it' }),
    afterKill: async host => {
      const { state } = await host.client.show('other')
      expect(state).toBe('verified')
      // Nobody goes on with it: whoever asked for it has the tree.
      for (const image of await host.client.list()) if (image.name === 'it') expect(image.state).toMatch(/verified|quarantined/)
    },
    after: async host => { expect(await statesOf(host)).toEqual({ other: 'verified', it: 'verified' }) },
  })
  expect(steps).toEqual(expect.arrayContaining(['mkdir quarantine/stage-*', 'rename quarantine/stage-*', 'commit create, images', 'rename quarantine/<image>/tree', 'commit pass, images', 'rename by-name/.tmp-*']))
})

it('so is one of a closure, which keeps what it has in the Nix store only for images', PATIENCE, async () => {
  const store = throwAwayStore()
  onTestFinished(() => { store.remove() })
  const top = store.run('nix-instantiate', '--eval', '--strict', '--json', '--read-write-mode', '-E', 'builtins.toFile "top" "see ${builtins.toFile "leaf" "a leaf"}"')
  const path = JSON.parse(top) as string
  const steps = await crashEverywhere({
    options: { env: store.env },
    before: host => removeAll(host),
    verb: host => host.client.import({ path, name: 'top', closure: true }),
    after: async host => {
      expect((await host.client.show('top')).closure).toMatchObject({ paths: 2, missing: [] })
      expect(await readdir(join(host.dataDir, 'gcroots'))).toHaveLength(2)
    },
  })
  expect(steps).toContain('tell Nix')
})

it('an image that is being removed is there as a whole or gone, with its name and its files', PATIENCE, async () => {
  const dir = await temporaryDirectory()
  await makeTree(join(dir, 'tree'))
  await writeFile(join(dir, 'other'), 'other')
  const steps = await crashEverywhere({
    prepare: async host => { await host.client.import({ path: join(dir, 'other'), name: 'other' }) },
    before: async host => { await host.client.import({ path: join(dir, 'tree'), name: 'it' }) },
    verb: host => removeAll(host, 'it'),
    after: async host => {
      expect(await statesOf(host)).toEqual({ other: 'verified' })
      expect(await readdir(join(host.dataDir, 'images'))).toHaveLength(1)
    },
  })
  expect(steps).toEqual(expect.arrayContaining(['unlink by-name/it', 'commit remove, images', 'rename images/<image>']))
})

it('a collection takes images as a whole, and only those that it may', PATIENCE, async () => {
  const dir = await temporaryDirectory()
  for (const name of ['kept', 'one', 'two', 'bad']) await writeFile(join(dir, name), name)
  const steps = await crashEverywhere({
    options: { env: { NARVIK_SPACE_MIN_COPIES: '0' } },
    prepare: async host => { await host.client.import({ path: join(dir, 'kept'), name: 'kept' }) },
    before: async host => {
      for (const name of ['one', 'two']) await host.client.import({ path: join(dir, name) })
      const { narHash, path } = await host.client.import({ path: join(dir, 'bad') })
      await chmod(path ?? '', 0o644)
      await writeFile(path ?? '', 'BAD')
      await host.client.verify({ ref: narHash })
    },
    verb: host => host.client.gc({}),
    afterKill: async host => { expect((await host.client.show('kept')).state).toBe('verified') },
    after: async host => {
      expect((await host.client.list()).map(({ state }) => state).sort()).toEqual(['rejected', 'verified'])
      expect(await readdir(join(host.dataDir, 'quarantine'))).toEqual([])
    },
  })
  expect(steps).toEqual(expect.arrayContaining(['rename quarantine/<image>', 'commit remove, images', 'rename images/<image>']))
})

/** The images that have a name, and the state of each. */
async function statesOf(host: TestDaemon): Promise<Record<string, string>> {
  return Object.fromEntries((await host.client.list()).map(({ name, state }): [string, string] => [name ?? '', state]))
}

async function removeAll(host: TestDaemon, name?: string): Promise<void> {
  for (const image of await host.client.list()) if (name === undefined || image.name === name) await host.client.remove(image.narHash)
}

async function makeTree(root: string): Promise<void> {
  await mkdir(join(root, 'boot'), { recursive: true })
  await writeFile(join(root, 'boot', 'kernel'), 'kernel')
  await writeFile(join(root, 'run'), 'run')
  await chmod(join(root, 'run'), 0o755)
  await symlink('boot/kernel', join(root, 'link'))
}
