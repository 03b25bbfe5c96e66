import { existsSync, lstatSync, mkdirSync, readlinkSync, rmSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { expect, it } from 'vitest'
import type { Logger } from '../../../src/log.ts'
import { NixError } from '../../../src/nix/nix-error.ts'
import type { ImageRow } from '../../../src/store/image-row.ts'
import { alignAllRoots, alignRoots, protect } from '../../../src/tasks/gc-roots.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { installImage } from '../../../src/tasks/install-image.ts'
import { FakeFleet } from '../../helpers/fake-fleet.ts'
import { hold, WatchedNix } from '../../helpers/held-paths.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'

async function start() {
  const watched = new WatchedNix()
  const { context } = await FakeFleet.start({ nix: watched.nix })
  const warnings: string[] = []
  const logger: Logger = { ...context.logger, warn: message => { warnings.push(message) } }
  return { watched, context: { ...context, logger }, warnings }
}

type Host = Awaited<ReturnType<typeof start>>

/** An image whose tree is in the Nix store. */
async function imported({ watched, context }: Host, name = 'image'): Promise<{ row: ImageRow, path: string, link: string }> {
  const path = watched.store.run('nix', 'store', 'add-path', watched.store.file(name, name))
  const row = await importImage(context, { path })
  expect(row).toMatchObject({ place: 'nix-store', note: null })
  return { row, path, link: context.content.roots.path(row.narHash) }
}

/** Nix forgets every root that it has registered. */
function forget({ watched }: Host): void {
  rmSync(join(watched.store.root, 'var/gcroots/auto'), { recursive: true })
  mkdirSync(join(watched.store.root, 'var/gcroots/auto'))
}

function isThere(link: string): boolean {
  return lstatSync(link, { throwIfNoEntry: false }) !== undefined
}

const never = new AbortController().signal

it('a root is made for what is in the store, and goes with what is there no more', async () => {
  const host = await start()
  const { row, path, link } = await imported(host)
  rmSync(link)
  symlinkSync(someStorePath(1, host.watched.nix.storeDir), link)
  await alignRoots(host.context, [row.narHash])
  expect(readlinkSync(link)).toBe(path)
  forget(host)
  host.watched.asked.length = 0
  await alignRoots(host.context, [row.narHash])
  expect(host.watched.asked).toEqual([`keep ${basename(path)}`, 'valid', `root ${basename(link)}`])
  expect(await host.watched.nix.hasRoot(link)).toBe(true)
  // What is as it should be is not asked about.
  host.watched.connections = 0
  await alignRoots(host.context, [row.narHash])
  expect(host.watched.connections).toBe(0)

  host.context.catalog.transition(row.narHash, 'damage', { reason: 'found altered' })
  await alignRoots(host.context, [row.narHash])
  expect(isThere(link)).toBe(true)
  host.context.catalog.transition(row.narHash, 'fail', { reason: 'it is another' })
  await alignRoots(host.context, [row.narHash])
  expect(isThere(link)).toBe(false)
  host.watched.store.run('nix-collect-garbage')
  expect(existsSync(path)).toBe(false)
})

it('an image in Narvik\'s own store has no root under its name', async () => {
  const host = await start()
  const { image, path } = await hold(host.context, 'program')
  const link = host.context.content.roots.path(image.narHash)
  symlinkSync(path, link)
  await alignRoots(host.context, [image.narHash])
  expect(isThere(link)).toBe(false)
})

it('what can not be protected has a note each, and the log says so', async () => {
  const host = await start()
  const { row, path } = await imported(host)
  const other = someHash('other')
  const gone = { narHash: other, storePath: someStorePath(2, host.watched.nix.storeDir) }
  const notes = await protect(host.context, [{ narHash: row.narHash, storePath: path }, gone])
  expect([...notes]).toEqual([[other.toNix32(), expect.stringMatching(/^Nix's garbage collector may remove it: Cannot protect .*not valid/)]])
  expect(host.warnings).toHaveLength(1)

  const strange = await protect(host.context, [{ narHash: row.narHash, storePath: path }, { narHash: other, storePath: '/elsewhere/path' }])
  expect([...strange.keys()].toSorted()).toEqual([row.narHash.toNix32(), other.toNix32()].toSorted())

  // Nix says that it has registered the link, and has not.
  const lying = { ...host.watched.nix, hasRoot: () => Promise.resolve(false) }
  const unknown = await protect({ ...host.context, nix: lying }, [{ narHash: row.narHash, storePath: path }])
  expect([...unknown.values()]).toEqual([expect.stringMatching(/found no registration of .* by Nix, needed one/)])

  await expect(protect(host.context, [gone], AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough')
})

it('at the start roots that are missing are made, and those of images that are gone are removed', async () => {
  const host = await start()
  const { content, catalog } = host.context
  const kept = await imported(host, 'kept')
  const lost = await imported(host, 'lost')
  const stranger = { narHash: someHash('stranger'), path: someStorePath(3, host.watched.nix.storeDir) }
  symlinkSync(stranger.path, content.roots.path(stranger.narHash))
  const installed = await Promise.all(['program', 'deleted', 'removed'].map(name => hold(host.context, name)))
  for (const { image: { narHash } } of installed) await installImage(host.context, { ref: { kind: 'nar-hash', narHash } })
  const links = installed.map(({ image: { narHash }, path }) => content.roots.installedPath(narHash, path))
  const [, deleted, removed] = installed
  forget(host)
  rmSync(lost.link)
  host.watched.store.run('nix-store', '--delete', deleted?.path ?? '')
  catalog.remove(removed?.image.narHash ?? someHash(0), 'removed')

  await alignAllRoots({ ...host.context, settings: { ...host.context.settings, useNix: false } }, never)
  expect(await host.watched.nix.hasRoot(kept.link)).toBe(false)

  await alignAllRoots(host.context, never)
  expect(await Promise.all([kept, lost].map(({ link }) => host.watched.nix.hasRoot(link)))).toEqual([true, true])
  expect(isThere(content.roots.path(stranger.narHash))).toBe(false)
  expect(await Promise.all(links.map(link => host.watched.nix.hasRoot(link)))).toEqual([true, false, false])
  expect(await content.roots.installed()).toMatchObject([{ link: links[0] }])
  expect(host.warnings).toEqual(['an installed path is not protected any more'])
})

it('the start goes on where roots can not be seen to, and says so unless it is ending', async () => {
  const host = await start()
  rmSync(join(host.context.content.dataDir, 'gcroots'), { recursive: true })
  await alignAllRoots(host.context, AbortSignal.abort())
  expect(host.warnings).toEqual([])
  await alignAllRoots(host.context, never)
  expect(host.warnings).toEqual(['cannot see to the roots of the images'])
})

it('an installed path that Nix can not be asked about keeps its link', async () => {
  const host = await start()
  const { image: { narHash }, path } = await hold(host.context, 'program')
  await installImage(host.context, { ref: { kind: 'nar-hash', narHash } })
  forget(host)
  const nix = { ...host.watched.nix, startStoreDaemon: () => Promise.reject(new NixError('failed', 'Cannot connect')) }
  await alignAllRoots({ ...host.context, nix }, never)
  expect(isThere(host.context.content.roots.installedPath(narHash, path))).toBe(true)
})
