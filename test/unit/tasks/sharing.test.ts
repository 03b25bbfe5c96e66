import { describe, expect, it, vi } from 'vitest'
import type { Sharing } from '../../../src/config.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { silentLogger } from '../../../src/log.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { MemoryNetwork, MemoryRouter } from '../../../src/p2p/router-memory.ts'
import { Announcer } from '../../../src/tasks/announce.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { makePrivate } from '../../../src/tasks/make-private.ts'
import { nameImage } from '../../../src/tasks/name-image.ts'
import { createClosureSource, createImageSource } from '../../../src/tasks/serve.ts'
import { ReceivingImage } from '../../../src/tasks/swarm/receiving.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { collect } from '../../helpers/trees.ts'

/** A host with one image, and what it tells its fleet under a policy that can be changed. */
async function host({ isPrivate = false }: { isPrivate?: boolean } = {}) {
  const { context } = await FakeFleet.start()
  const network = new MemoryNetwork()
  const router = new MemoryRouter(network, { peerId: 'host' })
  const announce = vi.spyOn(router, 'announce')
  const policy: { value: Sharing } = { value: 'everything' }
  const announcer = new Announcer({ router, logger: silentLogger }, { policy: () => policy.value })
  const parts = { ...context, announcer }
  const image = await makeImage(someTree())
  const row = await importImage(parts, { path: image.path, private: isPrivate })
  const told = (): boolean => network.hosts.get('host')?.held.has(image.narHash.toHex()) === true
  const setPolicy = (value: Sharing): void => {
    policy.value = value
    announcer.announceAll(context.catalog)
  }
  return { parts, row, image, told, setPolicy, announce }
}

describe('the fleet is told', () => {
  it('of everything, of what has a name, or of nothing, and of a change at once', async () => {
    const { parts, row, told, setPolicy } = await host()
    await vi.waitFor(() => { expect(told()).toBe(true) })
    setPolicy('named')
    await vi.waitFor(() => { expect(told()).toBe(false) })
    await nameImage(parts, row, 'web')
    await vi.waitFor(() => { expect(told()).toBe(true) })
    setPolicy('nothing')
    await vi.waitFor(() => { expect(told()).toBe(false) })
    setPolicy('everything')
    await vi.waitFor(() => { expect(told()).toBe(true) })
  })

  it('never of a private image, until it is none', async () => {
    const { parts, row, told, setPolicy, announce } = await host({ isPrivate: true })
    setPolicy('everything')
    await nameImage(parts, row, 'web')
    makePrivate(parts, { ref: { kind: 'name', name: 'web' }, private: false })
    await vi.waitFor(() => { expect(told()).toBe(true) })
    expect(announce).toHaveBeenCalledTimes(1)
    makePrivate(parts, { ref: { kind: 'name', name: 'web' }, private: true })
    await vi.waitFor(() => { expect(told()).toBe(false) })
  })
})

describe('a private image', () => {
  // Guard: `served`, which every source of bytes for peers asks.
  it('is served to nobody, and to those who ask it is not there', async () => {
    const { parts, image, row } = await host({ isPrivate: true })
    const source = createImageSource({ ...parts, onDamage: () => undefined })
    const closures = createClosureSource(parts)
    const read = () => collect(source.read(image.narHash, 0, 10, { signal: new AbortController().signal }))
    expect(await source.describe(image.narHash)).toBeUndefined()
    expect(closures.narSize(image.narHash)).toBeUndefined()
    expect(await closures.closure(image.narHash)).toBe('not-found')
    await expectFailure(read(), 'not-found', /not verified here/)
    makePrivate(parts, { ref: { kind: 'nar-hash', narHash: row.narHash }, private: false })
    expect(await source.describe(image.narHash)).toBeDefined()
    expect(await read()).toHaveLength(10)
    expect(closures.narSize(image.narHash)).toBe(image.nar.length)
  })

  // Guard: `cut`, which ends what was begun while the image was public.
  it('is sent no further to those who were being sent it, and its chunks are given on no further', async () => {
    const { parts, image } = await host()
    const source = createImageSource({ ...parts, onDamage: () => undefined })
    const stream = source.read(image.narHash, 0, image.nar.length, { signal: new AbortController().signal })[Symbol.asyncIterator]()
    expect((await stream.next()).value).toBeInstanceOf(Buffer)
    const { chunks, ...manifest } = decodeManifest(image.manifest)
    const arriving = new ReceivingImage({ narHash: image.narHash, manifestDigest: image.metadata.manifestDigest ?? '', layout: Layout.describedBy({ ...manifest, chunks }), chunks, trees: () => [image.path] })
    parts.receiving.add(arriving)
    makePrivate(parts, { ref: { kind: 'nar-hash', narHash: image.narHash }, private: true })
    await expectFailure(Promise.resolve(stream.next()), 'interrupted', /served no longer/)
    expect(arriving.gone.aborted).toBe(true)
    expect(parts.uses.isHeld(image.narHash)).toBe(false)
  })

  it('is one as well when it was here before it was imported as one', async () => {
    const { parts, image } = await host()
    expect((await importImage(parts, { path: image.path, private: true })).isPrivate).toBe(true)
    expect((await importImage(parts, { path: image.path })).isPrivate).toBe(true)
  })

  // Guard: the members of a closure that are looked at (createClosureSource). Who may not have a member is told of none.
  it('is in no closure that is told of, though the rest of it may be had', async () => {
    const { parts, row } = await host()
    const { catalog } = parts
    const inside = await makeImage(someTree(50_000, 3))
    await importImage(parts, { path: inside.path })
    const [outer, inner] = [`/nix/store/${'a'.repeat(32)}-outer`, `/nix/store/${'b'.repeat(32)}-inner`]
    const registration = { deriver: null, ca: null, signatures: [], vouchedBy: 'nix' as const }
    catalog.addStorePath(inside.narHash, { ...registration, storePath: inner, references: [] })
    catalog.addStorePath(row.narHash, { ...registration, storePath: outer, references: [inner] })
    const closures = createClosureSource(parts)
    expect(await closures.closure(row.narHash)).toMatchObject([{ storePath: inner }, { storePath: outer }])
    makePrivate(parts, { ref: { kind: 'nar-hash', narHash: inside.narHash }, private: true })
    expect(await closures.closure(row.narHash)).toBe('incomplete')
  })

  // Guard: `passedOn`, for what is given on before the whole of it is here.
  it('is told of to nobody while it is being received', async () => {
    const { parts } = await host()
    const { catalog } = parts
    const { narHash, manifest, metadata, path } = await makeImage(someTree(50_000, 3))
    catalog.create({ narHash, source: 'fetch', place: 'content' })
    catalog.describe(narHash, { ...metadata, name: null }, manifest)
    catalog.transition(narHash, 'start', { reason: 'so' })
    const decoded = decodeManifest(manifest)
    parts.receiving.add(new ReceivingImage({ narHash, manifestDigest: metadata.manifestDigest ?? '', layout: Layout.describedBy(decoded), chunks: decoded.chunks, trees: () => [path] }))
    const source = createImageSource({ ...parts, onDamage: () => undefined })
    expect(await source.describe(narHash)).toMatchObject({ verified: false })
    catalog.setPrivate(narHash, true)
    expect(await source.describe(narHash)).toBeUndefined()
  })
})
