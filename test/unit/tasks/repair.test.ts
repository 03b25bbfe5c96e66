import { chmod, mkdir, open, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Evidence } from '../../../src/image/verdict.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { repairImages } from '../../../src/tasks/repair-image.ts'
import { verifyImages, type VerifyResult } from '../../../src/tasks/verify-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, flipped, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
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
    expect(giver.asked).toHaveLength(FLIPS.length)
    expect(evidenceOf(host.fleet, host.image)).toMatchObject({ peers: [{ peerId: 'giver', bytes: chunkBytes(host.image), outcome: 'used' }] })
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

  it('is left as it is where it is whole', async () => {
    const host = await damaged()
    const giver = await host.fleet.add('giver', host.image)
    const results = await host.repair()
    await expectWhole(host, results)
    expect(results[0]?.repaired).toBeUndefined()
    expect(giver.asked).toEqual([])
  })

  it('takes what other images of this host have before it asks a peer', async () => {
    const host = await damaged()
    await importImage(host.fleet.context, { path: (await makeImage(regular(randomOf(1, 3 * MIB)))).path })
    await flip(host.root)
    const results = await host.repair()
    await expectWhole(host, results)
    expect(results[0]?.repaired).toEqual({ bytes: chunkBytes(host.image), received: 0 })
  })

  it('is repaired by an honest peer where another one lies, who is banned', async () => {
    const host = await damaged()
    await flip(host.root, [2 * MIB])
    const place = host.image.nar.indexOf(randomOf(1, 64)) + 2 * MIB
    await host.fleet.add('liar', host.image, { nar: flipped(host.image.nar, place) })
    await host.fleet.add('honest', host.image)
    await expectWhole(host, await host.repair())
    expect([...host.fleet.banned.keys()].filter(peerId => peerId === 'honest')).toEqual([])
    const outcomes = evidenceOf(host.fleet, host.image)?.peers?.map(({ peerId, outcome }) => [peerId, outcome])
    expect(outcomes).toContainEqual(['honest', 'used'])
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
