import { chmod, mkdir, open, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Evidence } from '../../../src/image/verdict.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { explainImage } from '../../../src/tasks/explain-image.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { repairImages } from '../../../src/tasks/repair-image.ts'
import { describeUsage } from '../../../src/tasks/usage.ts'
import { verifyImages, type VerifyResult } from '../../../src/tasks/verify-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, flipped, gate, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { someHash, someMetadata, someStorePath, WAY_TO } from '../../helpers/images.ts'
import { directory, regular } from '../../helpers/nar-bytes.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

const MIB = 1024 * 1024
const DISK = directory([{ name: Buffer.from('disk'), tree: regular(randomOf(1, 3 * MIB)) }, { name: Buffer.from('run'), tree: regular('#!/bin/sh\n', true) }])
const FLIPS = [100_000, 2 * MIB]

async function damaged(tree = DISK) {
  const image = await makeImage(tree)
  const fleet = await FakeFleet.start()
  await importImage(fleet.context, { path: image.path, name: 'it' })
  const root = fleet.context.content.imageTree(image.narHash)
  return { image, fleet, root, repair: () => repairImages(fleet.context, { ref: { kind: 'nar-hash', narHash: image.narHash } }) }
}

async function flip(root: string, positions = FLIPS): Promise<void> {
  const file = join(root, 'disk')
  await chmod(file, 0o644)
  const handle = await open(file, 'r+')
  for (const position of positions) {
    const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, position)
    await handle.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, position)
  }
  await handle.close()
}

/** Bytes of the chunks that hold these bytes of the disk. */
function chunkBytes({ manifest, nar }: TestImage, positions = FLIPS): number {
  const { chunks } = decodeManifest(manifest)
  const start = nar.indexOf(randomOf(1, 64))
  return [...new Set(positions.map(position => chunks.at(start + position)))].reduce((sum, chunk) => sum + chunks.length(chunk), 0)
}

function evidenceOf({ context }: FakeFleet, { narHash }: TestImage): Evidence | null | undefined {
  return context.catalog.journal(narHash).at(-1)?.evidence
}

async function expectWhole({ fleet, image, root }: Awaited<ReturnType<typeof damaged>>, [result]: VerifyResult[]): Promise<void> {
  expect(result?.verdict.verdict).toBe('pass')
  expect(fleet.context.catalog.get(image.narHash)?.state).toBe('verified')
  expect((await hashTree(root)).narHash.equals(image.narHash)).toBe(true)
  expect(fleet.announces(image.narHash)).toBe(true)
}

describe('a damaged image that is repaired', () => {
  it('gets only its damaged chunks from a peer', async () => {
    const host = await damaged()
    await flip(host.root)
    const giver = await host.fleet.add('giver', host.image)
    const results = await host.repair()
    await expectWhole(host, results)
    expect(results[0]?.repaired).toEqual({ bytes: chunkBytes(host.image), received: chunkBytes(host.image) })
    expect(giver.sent).toHaveLength(FLIPS.length)
    expect(giver.asked).toEqual([])
    expect(evidenceOf(host.fleet, host.image)).toMatchObject({ peers: [{ peerId: 'giver', bytes: chunkBytes(host.image), outcome: 'used' }], repaired: chunkBytes(host.image) })
    expect(host.fleet.context.catalog.journal(host.image.narHash).map(({ event }) => event)).toEqual(['create', 'start', 'complete', 'pass', 'damage', 'pass'])
  })

  it.each<[string, (root: string) => Promise<void>]>([
    ['lacks a file', async root => { await unlink(join(root, 'run')) }],
    ['has another mode', async root => { await chmod(join(root, 'run'), 0o444) }],
    ['has a file too many', async root => { await writeFile(join(root, 'stranger'), 'x') }],
    ['has a directory in place of a file', async root => {
      await unlink(join(root, 'run'))
      await mkdir(join(root, 'run'))
    }],
    ['has a symlink in place of a file', async root => {
      await unlink(join(root, 'run'))
      await symlink('/etc/passwd', join(root, 'run'))
    }],
    ['has a file that is cut', async root => {
      await chmod(join(root, 'disk'), 0o644)
      const handle = await open(join(root, 'disk'), 'r+')
      await handle.truncate(2 * MIB)
      await handle.close()
    }],
    ['is gone', async root => { await rm(root, { recursive: true }) }],
  ])('is whole again where its tree %s', async (_, harm) => {
    const host = await damaged()
    await chmod(host.root, 0o755)
    await harm(host.root)
    await host.fleet.add('giver', host.image)
    await expectWhole(host, await host.repair())
  })

  it('was imported all the same, also where it was rejected before', async () => {
    const host = await damaged()
    const ref = { kind: 'nar-hash' as const, narHash: host.image.narHash }
    await flip(host.root)
    await host.fleet.add('giver', host.image)
    expect((await verifyImages(host.fleet.context, { ref })).map(({ verdict }) => verdict.verdict)).toEqual(['fail'])
    await expectWhole(host, await host.repair())
    expect(explainImage(host.fleet.context, ref).why).toMatch(/^it was imported on this host/)
  })

  it('is left as it is where it is whole', async () => {
    const host = await damaged()
    const giver = await host.fleet.add('giver', host.image)
    const results = await host.repair()
    await expectWhole(host, results)
    expect(results[0]?.repaired).toBeUndefined()
    expect([giver.asked, giver.sent]).toEqual([[], []])
  })

  it('takes what other images of this host have before it asks a peer', async () => {
    const host = await damaged()
    await importImage(host.fleet.context, { path: (await makeImage(regular(randomOf(1, 3 * MIB)))).path })
    await flip(host.root)
    const results = await host.repair()
    await expectWhole(host, results)
    expect(results[0]?.repaired).toEqual({ bytes: chunkBytes(host.image), received: 0 })
  })

  it('gets them from several peers at once, from each what it has', async () => {
    const host = await damaged()
    const { chunks } = decodeManifest(host.image.manifest)
    await rm(host.root, { recursive: true })
    const parts = [new ChunkSet(chunks.count), new ChunkSet(chunks.count)]
    for (let chunk = 0; chunk < chunks.count; chunk++) parts[chunk % 2]?.add(chunk)
    const givers = await Promise.all(parts.map((have, number) => host.fleet.add(`giver ${number}`, host.image, { have })))
    await expectWhole(host, await host.repair())
    expect(givers.map(({ sent }) => sent.length)).toEqual(parts.map(({ size }) => size))
    expect(givers.flatMap(({ asked }) => asked)).toEqual([])
  })

  it('gets what it has in several places once', async () => {
    const part = randomOf(5, MIB)
    const host = await damaged(directory([{ name: Buffer.from('disk'), tree: regular(Buffer.concat([part, part, part])) }]))
    await rm(host.root, { recursive: true })
    const giver = await host.fleet.add('giver', host.image)
    await expectWhole(host, await host.repair())
    const { chunks } = decodeManifest(host.image.manifest)
    const hashes = giver.sent.map(chunk => Buffer.from(chunks.hash(chunk)).toString('hex'))
    expect(new Set(hashes).size).toBe(hashes.length)
    expect(evidenceOf(host.fleet, host.image)?.sources?.reused).toMatchObject([{ narHash: host.image.narHash.toSri() }])
  })

  it('is repaired by an honest peer where another one lies, who is banned and named', async () => {
    const host = await damaged()
    const { chunks } = decodeManifest(host.image.manifest)
    const { opened, open: letGo } = gate()
    await rm(host.root, { recursive: true })
    await host.fleet.add('liar', host.image, { nar: Buffer.from(host.image.nar.map(byte => byte ^ 1)) })
    // It sends when the other one has lied.
    await host.fleet.add('honest', host.image, { before: () => opened })
    const repairing = host.repair()
    await expect.poll(() => [...host.fleet.banned.keys()], { timeout: 10_000 }).toEqual(['liar'])
    letGo()
    await expectWhole(host, await repairing)
    expect([...host.fleet.banned.keys()]).toEqual(['liar'])
    const { peers = [], sources } = evidenceOf(host.fleet, host.image) ?? {}
    expect(peers.find(({ peerId }) => peerId === 'liar')).toMatchObject({ bytes: 0, outcome: 'lied', detail: expect.stringMatching(/its chunk \d+, at byte \d+ of the NAR, was not what its hash says/) as unknown })
    expect(peers.find(({ peerId }) => peerId === 'honest')).toMatchObject({ bytes: chunks.narSize, outcome: 'used' })
    expect(sources?.wasted).toBeGreaterThan(0)
    expect(sources?.wasted).toBeLessThanOrEqual(2 * 256 * 1024)
  })

  it('is explained by what came at first and what was brought again', async () => {
    const image = await makeImage(DISK)
    const fleet = await FakeFleet.start()
    const ref = { kind: 'nar-hash' as const, narHash: image.narHash }
    await fleet.add('giver', image)
    await fetchImage(fleet.context, { ref })
    await flip(fleet.context.content.imageTree(image.narHash))
    await verifyImages(fleet.context, { ref })
    expect(explainImage(fleet.context, ref)).toMatchObject({ state: 'rejected', next: 'it stays out of reach; narvik verify --repair brings the parts that are wrong, narvik rm drops it' })
    await repairImages(fleet.context, { ref })
    const again = chunkBytes(image)
    expect(explainImage(fleet.context, ref)).toMatchObject({ state: 'verified', repaired: again, wasted: 0, peers: [{ peerId: 'giver', bytes: image.nar.length + again, outcome: 'used' }] })
    // Another image of this host has it: nobody sends it.
    await importImage(fleet.context, { path: (await makeImage(regular(randomOf(1, 3 * MIB)))).path })
    await flip(fleet.context.content.imageTree(image.narHash))
    await repairImages(fleet.context, { ref })
    expect(explainImage(fleet.context, ref)).toMatchObject({ repaired: 2 * again, peers: [{ bytes: image.nar.length + again }], reused: [{ bytes: again }] })
  })

  it('takes no room from the quota that it does not need, and none that is not there', async () => {
    const host = await damaged()
    await flip(host.root)
    await host.fleet.add('giver', host.image)
    const { space, context } = host.fleet
    const { signal } = new AbortController()
    const { usedBytes } = await describeUsage(context, { signal })
    const settings = { quotaBytes: null, minFreeBytes: 0, minCopies: 0 }
    space.configure({ ...settings, quotaBytes: usedBytes + chunkBytes(host.image) + 100_000 })
    await expectWhole(host, await host.repair())
    expect((await describeUsage(context, { signal })).claimedBytes).toBe(0)

    // Every other block is a hole, of which its manifest does not tell.
    const holes = await makeImage(directory([{ name: Buffer.from('disk'), tree: regular(Buffer.from(randomOf(9, 3 * MIB).map((byte, index) => (index >> 12) % 2 === 0 ? byte : 0))) }]))
    space.configure(settings)
    await host.fleet.add('holes', holes)
    await fetchImage(context, { ref: { kind: 'nar-hash', narHash: holes.narHash } })
    await flip(context.content.imageTree(holes.narHash), [4096 * 100])
    space.configure({ ...settings, quotaBytes: (await describeUsage(context, { signal })).usedBytes + MIB })
    const [mended] = await repairImages(context, { ref: { kind: 'nar-hash', narHash: holes.narHash } })
    expect(mended?.verdict.verdict).toBe('pass')

    await rm(host.root, { recursive: true })
    space.configure({ ...settings, quotaBytes: 2 * MIB })
    await expectFailure(host.repair(), 'over-quota', /Cannot take [\d.]+ [KM]iB more/)
    expect(context.catalog.get(host.image.narHash)?.state).toBe('rejected')
    space.configure(settings)
    await expectWhole(host, await host.repair())
  })

  it('is rejected where nobody has its bytes, and repaired when somebody has', async () => {
    const host = await damaged()
    await flip(host.root)
    await expectFailure(host.repair(), 'no-provider', /needed a provider/)
    const { catalog, content } = host.fleet.context
    const row = catalog.get(host.image.narHash)
    expect(row?.state).toBe('rejected')
    expect(row && content.visiblePath(row)).toBeNull()
    expect(evidenceOf(host.fleet, host.image)?.notes).toEqual([expect.stringContaining('could not be repaired')])
    await host.fleet.add('giver', host.image)
    await expectWhole(host, await host.repair())
  })

  it('is not served while it is repaired', async () => {
    const host = await damaged()
    await flip(host.root)
    const states: (string | undefined)[] = []
    await host.fleet.add('giver', host.image, { before: () => { states.push(host.fleet.context.catalog.get(host.image.narHash)?.state) } })
    await expectWhole(host, await host.repair())
    expect(new Set(states)).toEqual(new Set(['quarantined']))
  })
})

it('a damaged liar alone is banned, and the image is rejected', async () => {
  const host = await damaged()
  await flip(host.root, [2 * MIB])
  await host.fleet.add('liar', host.image, { nar: flipped(host.image.nar, host.image.nar.indexOf(randomOf(1, 64)) + 2 * MIB) })
  await expectFailure(host.repair(), 'no-provider', /liar/)
  expect([...host.fleet.banned.keys()]).toEqual(['liar'])
  expect(host.fleet.context.catalog.get(host.image.narHash)?.state).toBe('rejected')
  expect(evidenceOf(host.fleet, host.image)?.peers).toMatchObject([{ peerId: 'liar', outcome: 'lied' }])
})

it('an image in the Nix store is withdrawn, and left to Nix', async () => {
  const { fleet } = await damaged(someTree())
  const { catalog } = fleet.context
  const [narHash, storePath] = [someHash('in-place'), someStorePath('in-place', '/nowhere/store')]
  catalog.create({ narHash, source: 'import', place: 'nix-store' })
  catalog.describe(narHash, someMetadata(narHash, { storePath }), null)
  for (const event of WAY_TO.verified) catalog.transition(narHash, event, { reason: 'test' })
  const failure = await repairImages(fleet.context, { ref: { kind: 'nar-hash', narHash } }).catch((error: unknown) => error)
  expect(failure).toMatchObject({ code: 'refused', hint: expect.stringContaining(`nix store repair ${storePath}`) as string })
  expect(catalog.get(narHash)?.state).toBe('rejected')
  // Of many images, it is one that failed.
  expect((await verifyImages(fleet.context, { ref: 'all' })).map(({ verdict }) => verdict.verdict)).toEqual(['pass'])
})
