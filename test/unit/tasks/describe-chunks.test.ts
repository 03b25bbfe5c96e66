import { setImmediate } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { MAX_TOLD_CELLS } from '../../../src/limits.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { describeChunks } from '../../../src/tasks/describe-chunks.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { lookUp } from '../../../src/tasks/refs.ts'
import { ReceivingImage } from '../../../src/tasks/swarm/receiving.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'

type Told = ReturnType<typeof describeChunks>

function cellsOf({ cells }: Told): number[] {
  return [...Buffer.from(cells, 'base64')]
}

/** A fleet with one image that is being received, of which the chunks of `have` are proven. */
function receiving(count: number, have: Iterable<number>): Told {
  const narHash = NarHash.parse(`sha256-${Buffer.alloc(32, 7).toString('base64')}`)
  const set = new ChunkSet(count)
  for (const chunk of have) set.add(chunk)
  const row = { narHash, narSize: count * 65_536, state: 'receiving' }
  const context = { catalog: { get: () => row }, receiving: { get: () => ({ have: set }) }, jobs: { find: () => undefined } }
  return describeChunks(context as unknown as Parameters<typeof describeChunks>[0], { kind: 'nar-hash', narHash })
}

it('tells of each chunk of a small image whether it is here', () => {
  const told = receiving(10, [0, 1, 9])
  expect(told.chunks).toEqual({ count: 10, proven: 3 })
  expect(cellsOf(told)).toEqual([255, 255, 0, 0, 0, 0, 0, 0, 0, 255])
})

it('tells of a large image in a bounded number of pieces, of which only the full are 255 and only the empty 0', () => {
  const count = 1_000_003
  const missing = new Set([500_000, 999_999])
  const most = cellsOf(receiving(count, Array.from({ length: count }, (_, chunk) => chunk).filter(chunk => !missing.has(chunk))))
  expect(most).toHaveLength(MAX_TOLD_CELLS)
  expect(most.filter(cell => cell !== 255)).toEqual([254, 254])
  const least = cellsOf(receiving(count, [0, count - 1]))
  expect([least[0], least.at(-1), least.slice(1, -1).every(cell => cell === 0)]).toEqual([1, 1, true])
})

it('follows a real image from nothing to verified', async () => {
  const image = await makeImage(someTree(2_000_000))
  const manifest = decodeManifest(image.manifest)
  const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
  const have = new ChunkSet(manifest.chunks.count)
  have.add(0)
  await fleet.add('peer', image, { have })
  const ref = { kind: 'nar-hash' as const, narHash: image.narHash }
  const { context } = fleet
  let during: Told | undefined
  const fetching = fetchImage(context, { ref })
  const over = expectFailure(fetching, 'no-provider', /needed a provider/)
  while (during === undefined && await Promise.race([setImmediate(true), over.then(() => false)])) {
    if (lookUp(context.catalog, ref) === undefined) continue
    const told = describeChunks(context, ref)
    if ((told.chunks?.proven ?? 0) > 0) during = told
  }
  await over
  expect(during?.chunks).toEqual({ count: manifest.chunks.count, proven: 1 })
  expect(during === undefined ? [] : cellsOf(during)).toEqual(Array.from({ length: manifest.chunks.count }, (_, chunk) => chunk === 0 ? 255 : 0))
  expect(describeChunks(context, ref)).toMatchObject({ state: 'wanted', chunks: null, bytes: 0 })
  expect(cellsOf(describeChunks(context, ref)).every(cell => cell === 0)).toBe(true)

  await fleet.add('other', image)
  await fetchImage(context, { ref })
  const done = describeChunks(context, ref)
  expect(done).toMatchObject({ state: 'verified', chunks: null, bytes: image.nar.length, totalBytes: image.nar.length })
  expect(cellsOf(done).every(cell => cell === 255)).toBe(true)
  // What is left of an earlier try says nothing of an image that is verified.
  context.receiving.add(new ReceivingImage({ narHash: image.narHash, manifestDigest: '', layout: Layout.describedBy(manifest), chunks: manifest.chunks, trees: () => [] }))
  expect(describeChunks(context, ref)).toEqual(done)
})
