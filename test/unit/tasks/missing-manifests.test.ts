import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { expect, test, vi } from 'vitest'
import { importImage } from '../../../src/tasks/import-image.ts'
import { resumeWork } from '../../../src/tasks/resume.ts'
import { createImageSource } from '../../../src/tasks/serve.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { PATIENCE_MS } from '../../helpers/nodes.ts'

test('the manifests that an older catalog lacks are made from the verified trees, which are then served again', async () => {
  const { fleet, image } = await importedWithoutManifest()
  const { catalog } = fleet.context
  const source = createImageSource({ ...fleet.context, onDamage: () => undefined })
  expect(await source.describe(image.narHash)).toBeUndefined()
  const stop = resumeWork(fleet.context)
  await vi.waitFor(() => { expect(fleet.announces(image.narHash)).toBe(true) }, PATIENCE_MS)
  stop()
  expect(Buffer.from(catalog.manifest(image.narHash) ?? [])).toEqual(Buffer.from(image.manifest))
  expect(catalog.get(image.narHash)).toMatchObject({ state: 'verified', manifestDigest: image.metadata.manifestDigest })
  expect(await source.describe(image.narHash)).toMatchObject({ metadata: image.metadata })
})

test('a tree that is damaged is found while its manifest is made', async () => {
  const { fleet, image } = await importedWithoutManifest()
  await truncate(join(fleet.context.content.imageTree(image.narHash), 'disk'), 10)
  const stop = resumeWork(fleet.context)
  await vi.waitFor(() => { expect(fleet.context.catalog.get(image.narHash)?.state).toBe('rejected') }, PATIENCE_MS)
  stop()
  expect(fleet.announces(image.narHash)).toBe(false)
})

/** An image that was verified by a Narvik whose manifests had no chunks. */
async function importedWithoutManifest() {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  const { narHash } = await importImage(fleet.context, { path: image.path })
  await vi.waitFor(() => { expect(fleet.announces(narHash)).toBe(true) }, PATIENCE_MS)
  await fleet.context.node.router.withdraw(narHash)
  const database = new SqliteDatabase(join(fleet.context.content.dataDir, 'catalog.db'))
  database.exec('DELETE FROM manifests; UPDATE images SET manifest_digest = NULL')
  database.close()
  return { fleet, image }
}
