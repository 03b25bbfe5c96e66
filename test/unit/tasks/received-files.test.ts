import { chmod, lstat, mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { exportImage } from '../../../src/tasks/export-image.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { createImageSource } from '../../../src/tasks/serve.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'
import { collect } from '../../helpers/trees.ts'

/** Mode and kind of everything below a directory. */
async function modesIn(directory: string): Promise<{ path: string, mode: number, directory: boolean }[]> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true })
  return Promise.all(found.filter(entry => !entry.isSymbolicLink()).map(async entry => {
    const path = join(entry.parentPath, entry.name)
    const stat = await lstat(path)
    return { path, mode: stat.mode & 0o7777, directory: stat.isDirectory() }
  }))
}

describe('the files of a verified image', () => {
  // Guard: seal gives every entry its mode; a NAR knows of no other bits than the executable one.
  it.each([0o000, 0o022, 0o077])('have no bit that lets them do more, and none to be written to, with umask %o', async umask => {
    const fleet = await FakeFleet.start()
    const source = await temporaryDirectory()
    await mkdir(join(source, 'bin'))
    for (const [name, mode] of [['su', 0o4755], ['sg', 0o2755], ['open', 0o666]] as const) {
      await writeFile(join(source, 'bin', name), name)
      await chmod(join(source, 'bin', name), mode)
    }
    await chmod(join(source, 'bin'), 0o3777)
    const image = await makeImage(someTree(10_000))
    await fleet.add('peer', image)
    const before = process.umask(umask)
    try {
      await importImage(fleet.context, { path: source })
      await fetchImage(fleet.context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
    } finally {
      process.umask(before)
    }
    const images = join(fleet.context.content.dataDir, 'images')
    const found = await modesIn(images)
    expect(found.length).toBeGreaterThan(6)
    for (const { path, mode, directory } of found) expect(directory ? [0o555] : [0o444, 0o555], `${path} ${mode.toString(8)}`).toContain(mode)
  })
})

describe('the files of the daemon itself', () => {
  // Guard: guarded paths. Whoever may speak to the daemon has its rights otherwise.
  it('are neither imported, by whatever path, nor exported over', async () => {
    const fleet = await FakeFleet.start()
    const { dataDir } = fleet.context.content
    const link = join(await temporaryDirectory(), 'link')
    await symlink(dataDir, link)
    const ways = [join(dataDir, 'catalog.db'), dataDir, join(dataDir, '..'), '/', join(link, 'catalog.db'), join(link, 'images', '..', 'catalog.db'), `${dataDir}/images/..`]
    for (const path of ways) await expectFailure(importImage(fleet.context, { path }), 'refused', /for this host alone/)
    const source = await temporaryDirectory()
    await writeFile(join(source, 'file'), 'harmless')
    const row = await importImage(fleet.context, { path: source })
    for (const dest of [join(dataDir, 'out'), join(dataDir, 'quarantine/out'), join(link, 'by-name/out'), join(link, 'images/../out')]) {
      await expectFailure(exportImage(fleet.context, { ref: { kind: 'nar-hash', narHash: row.narHash }, dest }), 'refused', /own directory/)
    }
    await exportImage(fleet.context, { ref: { kind: 'nar-hash', narHash: row.narHash }, dest: join(await temporaryDirectory(), 'out') })
  })
})

describe('a directory that is for this host alone', () => {
  // Guard: what is below a secret is one, and not only what is above it.
  it('is not imported from, by whatever path', async () => {
    const secret = await temporaryDirectory()
    await mkdir(join(secret, 'sub'))
    await writeFile(join(secret, 'sub/key'), 'secret')
    const { context } = await FakeFleet.start()
    const guarded = { ...context, settings: { ...context.settings, guarded: { ...context.settings.guarded, secrets: [secret] } } }
    const link = join(await temporaryDirectory(), 'link')
    await symlink(secret, link)
    for (const path of [join(secret, 'sub/key'), join(secret, 'sub'), join(link, 'sub'), join(link, 'sub/../sub/key')]) {
      await expectFailure(importImage(guarded, { path }), 'refused', /for this host alone/)
    }
  })
})

describe('a symlink that has come into the place of a directory of an image', () => {
  // Guard: files are opened from the directory that holds them, which is opened without following a link.
  it('is not followed when the image is served, and is damage', async () => {
    const fleet = await FakeFleet.start()
    const source = await temporaryDirectory()
    await mkdir(join(source, 'sub'))
    await writeFile(join(source, 'sub/file'), 'as it was')
    const row = await importImage(fleet.context, { path: source })
    const outside = await temporaryDirectory()
    await writeFile(join(outside, 'file'), 'forbidden')
    const tree = fleet.context.content.visiblePath(row) ?? ''
    await chmod(tree, 0o755)
    await chmod(join(tree, 'sub'), 0o755)
    await rename(join(tree, 'sub'), join(tree, '../moved'))
    await symlink(outside, join(tree, 'sub'))
    const damaged: string[] = []
    const images = createImageSource({ ...fleet.context, onDamage: (_row, reason) => { damaged.push(reason) } })
    const read = collect(images.read(row.narHash, 0, row.narSize ?? 0, { signal: new AbortController().signal }))
    await expect(read).rejects.toThrow(/Cannot/)
    expect(damaged).toHaveLength(1)
  })
})
