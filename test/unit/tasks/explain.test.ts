import { expect, it } from 'vitest'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { explainImage } from '../../../src/tasks/explain-image.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'

it('tells of an image that can not be finished who was asked, what came and what happens next', async () => {
  const image = await makeImage(someTree(2_000_000))
  const { chunks: { count } } = decodeManifest(image.manifest)
  const have = new ChunkSet(count)
  have.add(0)
  const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
  await fleet.add('peer', image, { have })
  const ref = { kind: 'nar-hash' as const, narHash: image.narHash }
  await expectFailure(fetchImage(fleet.context, { ref }), 'no-provider', /needed a provider/)
  const waiting = explainImage(fleet.context, ref)
  expect(waiting).toMatchObject({ state: 'wanted', next: 'it is looked for every 10 s and whenever a peer connects' })
  expect(waiting.why).toMatch(/^it was asked for by its NAR hash at /)
  expect(waiting.reason).toMatch(/needed a provider/)
  expect(waiting.tried.map(({ event }) => event)).toEqual(['create', 'start', 'interrupt'])

  await fleet.add('other', image)
  await fetchImage(fleet.context, { ref })
  const done = explainImage(fleet.context, ref)
  expect(done).toMatchObject({ state: 'verified', reason: null, refused: [] })
  expect(done.peers.map(({ peerId, outcome }) => [peerId, outcome]).sort()).toEqual([['other', 'used'], ['peer', 'used']])
  expect(done.peers.reduce((sum, { bytes }) => sum + bytes, done.zeros)).toBe(image.nar.length)
})

it('tells of a rejected image which stage failed it and who lied', async () => {
  const image = await makeImage(someTree())
  const fleet = await FakeFleet.start()
  await fleet.add('liar', image, { nar: Buffer.from(image.nar.map((byte, index) => index === 100_000 ? byte ^ 1 : byte)) })
  const ref = { kind: 'nar-hash' as const, narHash: image.narHash }
  await expectFailure(fetchImage(fleet.context, { ref }), 'verification-failed', /not to sha256-/)
  const told = explainImage(fleet.context, ref)
  expect(told.refused.map(({ by }) => by)).toEqual(expect.arrayContaining(['liar', 'stage nar-hash']))
  expect(told.next).toBe('it stays out of reach; narvik fetch tries again, narvik rm drops it')
})
