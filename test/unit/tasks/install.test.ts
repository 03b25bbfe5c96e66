import { existsSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { messageOf } from '../../../src/errors.ts'
import type { Logger } from '../../../src/log.ts'
import type { ImageRow } from '../../../src/store/image-row.ts'
import { memberOf, type Member } from '../../../src/tasks/closure.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { installEach, installImage, type Installed } from '../../../src/tasks/install-image.ts'
import { Installer } from '../../../src/tasks/installer.ts'
import { removeImage } from '../../../src/tasks/remove-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, gate } from '../../helpers/fake-fleet.ts'
import { hold, WatchedNix, type HeldPath } from '../../helpers/held-paths.ts'
import { someHash } from '../../helpers/images.ts'

const start = async (settings: Parameters<typeof FakeFleet.start>[0] = {}) => {
  const watched = new WatchedNix()
  const { context } = await FakeFleet.start({ nix: watched.nix, ...settings })
  return { watched, context }
}

type Host = Awaited<ReturnType<typeof start>>

function install({ context }: Host, { image: { narHash } }: HeldPath, more: { closure?: boolean } = {}): Promise<Installed> {
  return installImage(context, { ref: { kind: 'nar-hash', narHash }, ...more })
}

function row({ context }: Host, { image: { narHash } }: HeldPath): ImageRow | undefined {
  return context.catalog.get(narHash)
}

function linkOf({ context }: Host, { image: { narHash }, path }: HeldPath): string {
  return context.content.roots.installedPath(narHash, path)
}

function member(host: Host, held: HeldPath): Member {
  const found = row(host, held)
  const one = found === undefined ? undefined : memberOf(host.context.catalog, found)
  if (one === undefined) throw new Error('it has no store path')
  return one
}

describe('an image is installed', () => {
  it('after it and what it refers to are kept from the garbage collector, and rooted before the connection ends', async () => {
    const host = await start()
    const library = await hold(host.context, 'library')
    const program = await hold(host.context, 'program', { references: ['library', 'program'] })
    expect(await install(host, program, { closure: true })).toEqual({ storePath: program.path, added: [library.path, program.path] })
    const root = (held: HeldPath): string => `root ${linkOf(host, held).split('/').at(-1) ?? ''}`
    expect(host.watched.asked).toEqual([
      'keep library', 'info library', 'valid', 'add library', 'valid', root(library),
      'keep program', 'info program', 'valid', 'add program', 'valid', root(program),
    ])
    expect(readlinkSync(linkOf(host, program))).toBe(program.path)
    expect(host.watched.connections).toBe(1)
  })

  it('alone only after each of its references was kept and then found valid', async () => {
    const host = await start()
    await install(host, await hold(host.context, 'library'))
    host.watched.asked.length = 0
    await install(host, await hold(host.context, 'program', { references: ['library'] }))
    expect(host.watched.asked.slice(0, 5)).toEqual(['keep program', 'info program', 'keep library', 'valid', 'add program'])
  })

  it('with all that it refers to, or not at all', async () => {
    const host = await start()
    const program = await hold(host.context, 'program', { references: ['library'] })
    await expectFailure(install(host, program, { closure: true }), 'conflict', /Cannot install the closure of .*: found 1 of the paths that it needs not verified here \(.*-image-library\)/)
    expect(host.watched.connections).toBe(0)
  })

  it('not where it is not verified', async () => {
    const host = await start()
    const narHash = someHash('wanted')
    host.context.catalog.create({ narHash, source: 'fetch', place: 'content' })
    await expectFailure(installImage(host.context, { ref: { kind: 'nar-hash', narHash } }), 'conflict', /found it wanted, needed it verified/)
    expect(host.watched.connections).toBe(0)
  })

  it.each([
    ['what it refers to', { references: ['/gnu/store/00000000000000000000000000000000-other'] }],
    ['what made it', { deriver: '/gnu/store/00000000000000000000000000000000-other' }],
  ])('not where %s belongs to another store', async (_, said) => {
    const host = await start()
    await expectFailure(install(host, await hold(host.context, 'program', said)), 'refused', /found \/gnu\/store\/0{32}-other in another store directory/)
    expect(host.watched.connections).toBe(0)
  })

  it('not where the store has another build of the path', async () => {
    const host = await start()
    await install(host, await hold(host.context, 'program'))
    const other = await hold(host.context, 'program', { contents: 'another build' })
    await expectFailure(install(host, other), 'conflict', /found it valid in the Nix store with the NAR hash sha256-.*, needed sha256-/)
    expect(existsSync(linkOf(host, other))).toBe(false)
  })

  it('and is not kept where it was removed meanwhile', async () => {
    const host = await start()
    const program = await hold(host.context, 'program')
    host.watched.before = request => { if (request.startsWith('root')) host.context.catalog.remove(program.image.narHash, 'removed') }
    await install(host, program)
    expect(host.watched.isValid(program.path)).toBe(true)
    expect(existsSync(linkOf(host, program))).toBe(false)
  })

  it('not where it was removed before its bytes were sent', async () => {
    const host = await start()
    const program = await hold(host.context, 'program')
    host.watched.before = request => { if (request.startsWith('add')) host.context.catalog.remove(program.image.narHash, 'removed') }
    await expectFailure(install(host, program), 'not-found', /it was removed meanwhile/)
    expect(host.watched.isValid(program.path)).toBe(false)
  })

  it('and says so where it can not be kept, until it can be', async () => {
    const host = await start()
    const program = await hold(host.context, 'program')
    const roots = join(host.context.content.dataDir, 'gcroots')
    renameSync(roots, `${roots}-aside`)
    writeFileSync(roots, 'no directory')
    await install(host, program)
    expect(row(host, program)?.note).toMatch(/^In the Nix store: it is there, but Nix's garbage collector may remove it: Cannot protect /)
    await rm(roots)
    renameSync(`${roots}-aside`, roots)
    await install(host, program)
    expect(row(host, program)?.note).toBeNull()
    host.context.catalog.setNote(program.image.narHash, 'something else')
    await install(host, program)
    expect(row(host, program)?.note).toBe('something else')
  })
})

describe('of several images', () => {
  it('those that can be are installed, and the others told of', async () => {
    const host = await start()
    const held = [await hold(host.context, 'one'), await hold(host.context, 'two', { references: ['nowhere'] }), await hold(host.context, 'three')]
    const failures: string[] = []
    const installed = await installEach(host.context, held.map(one => member(host, one)), { signal: new AbortController().signal, onFailure: ({ registration }, error) => { failures.push(`${registration.storePath} ${messageOf(error)}`) } })
    expect(installed).toBe(2)
    expect(failures).toEqual([expect.stringMatching(new RegExp(`^${held[1]?.path ?? ''} Cannot install .* found 1 of its 1 references missing`))])
    expect(held.map(({ path }) => host.watched.isValid(path))).toEqual([true, false, true])
    expect(held.map(one => existsSync(linkOf(host, one)))).toEqual([true, false, true])
  })

  it('each is told of once where Nix can not be reached', async () => {
    const host = await start()
    const held = [await hold(host.context, 'one'), await hold(host.context, 'two')]
    host.watched.store.run('rmdir', host.watched.store.storeDir)
    const failures: string[] = []
    expect(await installEach(host.context, held.map(one => member(host, one)), { signal: new AbortController().signal, onFailure: ({ registration }) => { failures.push(registration.storePath) } })).toBe(0)
    expect(failures).toEqual(held.map(({ path }) => path))
    expect(host.watched.connections).toBe(1)
  })

  it('none more is begun once it is to end', async () => {
    const host = await start()
    const held = [await hold(host.context, 'one'), await hold(host.context, 'two')]
    const ending = new AbortController()
    host.watched.before = request => { if (request === 'keep one') ending.abort(new Error('enough')) }
    const failures: unknown[] = []
    await expect(installEach(host.context, held.map(one => member(host, one)), { signal: ending.signal, onFailure: (_member, error) => { failures.push(error) } })).rejects.toThrow('enough')
    expect([failures, host.watched.connections]).toEqual([[], 1])
  })
})

describe('where it is the policy', () => {
  const POLICY = { settings: { installFetched: true } }

  async function startLogging(): Promise<{ host: Host, warnings: string[] }> {
    const begun = await start(POLICY)
    const warnings: string[] = []
    const logger: Logger = { ...begun.context.logger, warn: (_message, fields) => { warnings.push(String(fields?.['reason'])) } }
    return { host: { ...begun, context: { ...begun.context, logger } }, warnings }
  }

  /** Resolves when everything that was taken up is done with. */
  async function whole(host: Host, use: (installer: Installer) => Promise<void> | void): Promise<void> {
    const installer = new Installer(host.context)
    await use(installer)
    await expect.poll(() => (host.watched.asked.length, installer.isIdle)).toBe(true)
    await installer[Symbol.asyncDispose]()
  }

  it('what is fetched is installed, dependencies first, and once', async () => {
    const host = await start(POLICY)
    const program = await hold(host.context, 'program', { references: ['library', 'program'] })
    const library = await hold(host.context, 'library')
    const other = await hold(host.context, 'other')
    await whole(host, installer => { installer.takeUpAll() })
    expect([program, library, other].map(({ path }) => host.watched.isValid(path))).toEqual([true, true, true])
    const added = host.watched.asked.filter(request => request.startsWith('add'))
    expect(added).toHaveLength(3)
    expect(added.indexOf('add library')).toBeLessThan(added.indexOf('add program'))
    const { connections } = host.watched
    expect(connections).toBe(1)
    await whole(host, installer => { installer.takeUpAll() })
    expect(host.watched.connections).toBe(connections)
  })

  it('what was imported, or is no more than a claim, is not', async () => {
    const host = await start(POLICY)
    const claim = await hold(host.context, 'claim', { vouchedBy: null })
    const path = host.watched.store.run('nix', 'store', 'add-path', host.watched.store.file('image', 'an image'))
    await importImage(host.context, { path })
    host.watched.connections = 0
    await whole(host, installer => { installer.takeUpAll() })
    expect(host.watched.isValid(claim.path)).toBe(false)
    expect(host.watched.connections).toBe(0)
  })

  it.each([['the policy is another', { installFetched: false }], ['Nix is turned off', { installFetched: true, useNix: false }]])('nothing is where %s', async (_, settings) => {
    const host = await start({ settings })
    await hold(host.context, 'program')
    await whole(host, installer => { installer.takeUpAll() })
    expect(host.watched.connections).toBe(0)
  })

  it('what fails has a note, and is tried again when something else was installed', async () => {
    const host = await start(POLICY)
    const program = await hold(host.context, 'program', { references: ['library'] })
    await whole(host, async installer => {
      installer.takeUpAll()
      await expect.poll(() => row(host, program)?.note).toMatch(/^In the Nix store: Cannot install .* references missing/)
      const { image: { narHash } } = await hold(host.context, 'library')
      // Only this one is verified anew.
      host.context.catalog.transition(narHash, 'damage', { reason: 'it changed' })
      host.context.catalog.transition(narHash, 'pass', { reason: 'it is right', vouchedBy: 'signatures' })
      await expect.poll(() => host.watched.isValid(program.path)).toBe(true)
    })
    expect(row(host, program)?.note).toBeNull()
  })

  it('what was removed while it failed is forgotten', async () => {
    const { host, warnings } = await startLogging()
    const program = await hold(host.context, 'program', { references: ['library'] })
    host.watched.before = request => { if (request === 'keep library') host.context.catalog.remove(program.image.narHash, 'removed') }
    await whole(host, installer => { installer.takeUpAll() })
    expect(row(host, program)).toBeUndefined()
    expect(host.watched.asked).toContain('keep library')
    expect(warnings).toEqual([expect.stringContaining('references missing')])
  })

  it('the end waits for what is under way, and nothing is begun after it', async () => {
    const { host, warnings } = await startLogging()
    const program = await hold(host.context, 'program')
    const { opened, open } = gate()
    host.watched.before = request => { if (request.startsWith('keep')) open() }
    const installer = new Installer(host.context)
    installer.takeUpAll()
    await opened
    await installer[Symbol.asyncDispose]()
    expect(installer.isIdle).toBe(true)
    expect([row(host, program)?.note, warnings]).toEqual([null, []])
    const { connections } = host.watched
    installer.takeUpAll()
    expect(installer.isIdle).toBe(true)
    await hold(host.context, 'other')
    expect([installer.isIdle, host.watched.connections]).toEqual([true, connections])
  })
})

it('what is removed lets go of every path that it is installed at', async () => {
  const host = await start()
  const one = await hold(host.context, 'one', { contents: 'the same' })
  await install(host, one)
  const two = await hold(host.context, 'two', { contents: 'the same' })
  await installImage(host.context, { ref: { kind: 'store-path', storePath: two.path } })
  expect([one, two].map(held => existsSync(linkOf(host, held)))).toEqual([true, true])
  await removeImage(host.context, { ref: { kind: 'nar-hash', narHash: one.image.narHash } })
  expect([one, two].map(held => existsSync(linkOf(host, held)))).toEqual([false, false])
})
