import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { expect, it, onTestFinished } from 'vitest'
import type { ImageDetailsJson, ImageJson, VerifyReportJson } from '../../src/control/api.ts'
import { TestDaemon } from '../helpers/fleet.ts'
import { throwAwayStore } from '../helpers/nix-store.ts'
import { twoStores } from '../helpers/two-stores.ts'

it('an image in the Nix store that Nix says no to is rejected, with what Nix said', async () => {
  const store = throwAwayStore()
  onTestFinished(() => { store.remove() })
  const path = store.run('nix', 'store', 'add-path', store.file('image', 'an image'))
  const host = await TestDaemon.start({ env: store.env })
  const { narHash } = await host.json<ImageJson>('import', path)
  const { results: [result] } = await host.json<VerifyReportJson>('verify', narHash)
  expect(result).toMatchObject({ verdict: 'pass', stages: expect.arrayContaining([expect.objectContaining({ stage: 'nix-store', verdict: 'pass', detail: `Nix finds ${path} intact` })]) as unknown })

  // The tree is what it was, but not what Nix has registered.
  const database = new SqliteDatabase(join(store.root, 'var/db/db.sqlite'))
  database.prepare('UPDATE ValidPaths SET hash = ?').run(`sha256:${'0'.repeat(64)}`)
  database.close()
  const failed = await host.run('verify', narHash)
  expect(failed.exitCode).toBe(5)
  expect(failed.stderr).toContain(`found that Nix finds ${path} altered in its store: path '${path}' was modified!`)
  const { state, path: shown, journal } = await host.json<ImageDetailsJson>('show', narHash)
  expect({ state, shown }).toEqual({ state: 'rejected', shown: null })
  expect(journal.at(-1)?.evidence?.verdict?.stages).toContainEqual(expect.objectContaining({ stage: 'nix-store', verdict: 'fail' }))
})

it('a copy in the Nix store that Nix says no to fails the answer, not the image', async () => {
  const stores = await twoStores()
  await writeFile(join(stores.dir, 'image'), 'an image')
  const path = await stores.sender.run('nix', 'store', 'add-path', join(stores.dir, 'image'))
  const a = await TestDaemon.start({ env: stores.sender.env })
  const b = await TestDaemon.start({ env: stores.receiver.env, bootstrap: [a] })
  await b.untilPeers(1)
  const { narHash } = await a.json<ImageJson>('import', path)
  const stagesOf = async (): Promise<string[]> => (await b.json<VerifyReportJson>('verify', narHash)).results[0]?.stages.map(({ stage, verdict }) => `${stage} ${verdict}`) ?? []
  await b.json('fetch', narHash)
  expect((await stagesOf()).join()).not.toContain('nix-store')
  await b.json('fetch', narHash, '--install')
  expect(await stagesOf()).toContain('nix-store pass')

  const copy = join(stores.dir, 'receiver', path.replace(stores.storeDir, '/nix/store'))
  await chmod(copy, 0o644)
  await writeFile(copy, 'another!')
  const failed = await b.run('verify', narHash)
  expect(failed.exitCode).toBe(5)
  expect(failed.stderr).toContain(`Cannot vouch for 1 of 1 image in the Nix store: found that Nix finds ${path} altered`)
  expect(await b.json<ImageJson>('show', narHash)).toMatchObject({ state: 'verified' })

  await stores.receiver.run('nix-store', '--delete', '--ignore-liveness', path)
  expect((await b.run('verify', '--all')).stderr).toContain(`found that Nix does not have ${path} as a valid path of its store any more`)
  expect(await b.json<ImageJson>('show', narHash)).toMatchObject({ state: 'verified' })
})
