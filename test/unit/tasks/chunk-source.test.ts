import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ChunkList } from '../../../src/image/chunk-list.ts'
import { decodeManifest, encodeManifest, manifestDigest } from '../../../src/image/manifest.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { createChunkSource } from '../../../src/tasks/chunk-source.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { repairImages } from '../../../src/tasks/repair-image.ts'
import { createImageSource } from '../../../src/tasks/serve.ts'
import { ReceivingImage } from '../../../src/tasks/swarm/receiving.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'

const { signal } = new AbortController()
const FIRST = { first: 0, count: 1 }

async function host() {
  const image = await makeImage(someTree())
  const { context } = await FakeFleet.start()
  const parts = { ...context, onDamage: () => undefined }
  return { image, context, source: createImageSource(parts), chunks: createChunkSource(parts), digest: manifestDigest(image.manifest) }
}

describe('the chunks of a verified image', () => {
  it('are in use while they are read', async () => {
    const { image, context, chunks, digest } = await host()
    await importImage(context, { path: image.path })
    const reading = chunks.hold(image.narHash, digest)?.read(FIRST, { signal })
    expect(context.uses.isHeld(image.narHash)).toBe(true)
    await reading
    expect(context.uses.isHeld(image.narHash)).toBe(false)
  })

  it('are not served once it is leaving, also to those who have begun', async () => {
    const { image, context, chunks, digest } = await host()
    await importImage(context, { path: image.path })
    const holding = chunks.hold(image.narHash, digest)
    const leaving = context.uses.leave(image.narHash)
    expect(chunks.hold(image.narHash, digest)).toBeUndefined()
    await expectFailure(holding?.read(FIRST, { signal }) ?? Promise.resolve(), 'not-found', /not served here any more/)
    expect(holding?.gone.aborted).toBe(true)
    leaving[Symbol.dispose]()
    expect(chunks.hold(image.narHash, digest)).toBeDefined()
  })
})

it('an image without a list of chunks is in no swarm, and not to be repaired', async () => {
  const { image, context, source, chunks } = await host()
  await importImage(context, { path: image.path })
  const manifest = encodeManifest(decodeManifest(image.manifest).listing, ChunkList.none())
  const digest = manifestDigest(manifest)
  context.catalog.setManifest(image.narHash, manifest, digest)
  expect(await source.describe(image.narHash)).toMatchObject({ verified: true })
  expect(chunks.hold(image.narHash, digest)).toBeUndefined()
  await rm(context.content.imageTree(image.narHash), { recursive: true })
  await expectFailure(repairImages(context, { ref: { kind: 'nar-hash', narHash: image.narHash } }), 'conflict', /found more chunks than a manifest lists/)
})

describe('an image that is being received', () => {
  async function receiving() {
    const made = await host()
    const { image, context, digest } = made
    const { narHash } = image
    context.catalog.create({ narHash, source: 'fetch', place: 'content' })
    context.catalog.describe(narHash, { ...image.metadata, name: null }, image.manifest)
    const manifest = decodeManifest(image.manifest)
    context.receiving.add(new ReceivingImage({ narHash, manifestDigest: digest, layout: Layout.describedBy(manifest), chunks: manifest.chunks, trees: () => [join(image.path, 'moved'), image.path] }))
    return made
  }

  it('is described and given on', async () => {
    const { image, source, chunks, digest } = await receiving()
    expect(await source.describe(image.narHash)).toMatchObject({ verified: false })
    expect(chunks.hold(image.narHash, digest)).toBeDefined()
  })

  it('is read where it is found', async () => {
    const { image, chunks, digest } = await receiving()
    const holding = chunks.hold(image.narHash, digest)
    const bytes = await holding?.read({ first: 0, count: 1 }, { signal: new AbortController().signal })
    expect(Buffer.from(bytes ?? []).equals(image.nar.subarray(0, holding?.chunks.length(0)))).toBe(true)
  })

  it('is there for nobody where it is private', async () => {
    const { image, context, source, chunks, digest } = await receiving()
    context.catalog.setPrivate(image.narHash, true)
    expect(await source.describe(image.narHash)).toBeUndefined()
    expect(chunks.hold(image.narHash, digest)).toBeUndefined()
  })

  it('is there for nobody where it is leaving', async () => {
    const { image, context, source, chunks, digest } = await receiving()
    using _leaving = context.uses.leave(image.narHash)
    expect(await source.describe(image.narHash)).toBeUndefined()
    expect(chunks.hold(image.narHash, digest)).toBeUndefined()
  })
})
