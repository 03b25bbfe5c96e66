import { describe, expect, it } from 'vitest'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { decodeManifest } from '../../../src/image/manifest.ts'
import { readNameRecord } from '../../../src/image/name-record.ts'
import { parsePublicKey } from '../../../src/nix/signature.ts'
import { explainImage } from '../../../src/tasks/explain-image.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { publishName } from '../../../src/tasks/published-names.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'
import { makePublisher, type Publisher } from '../../helpers/names.ts'

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
  expect([...done.peers, ...done.reused].reduce((sum, { bytes }) => sum + bytes, done.zeros)).toBe(image.nar.length)
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

describe('of a published name', () => {
  const WEB = { kind: 'name', name: 'web' } as const
  const start = (...publishers: Publisher[]): Promise<FakeFleet> => FakeFleet.start({
    settings: { trust: { keys: publishers.map(({ publicKey }) => parsePublicKey(publicKey)), needed: { 'nar-hash': 0, 'store-path': 1, 'name': 1 } } },
  })

  it('tells who published it and when, and that it is accepted', async () => {
    const publisher = makePublisher()
    const { context } = await start(publisher)
    const image = await makeImage(someTree(1000))
    await importImage(context, { path: image.path })
    const publishedAt = Date.now() - 5000
    await publishName(context, publisher.sign('web', image.narHash, { seq: 3, publishedAt }))
    const said = { name: 'web', publisher: publisher.publicKey, seq: 3, publishedAt: new Date(publishedAt).toISOString(), trusted: true, own: true, accepted: true, verdict: 'its image is verified here' }
    expect(explainImage(context, { kind: 'nar-hash', narHash: image.narHash }).names).toMatchObject([said])
    expect(explainImage(context, { ...WEB, publisher: 'fleet-1' })).toMatchObject({ narHash: image.narHash.toSri(), state: 'verified', names: [said] })
  })

  it('tells why it is not accepted: whose it is, its age, a newer one, another publisher, a refused record', async () => {
    const [one, other, stranger] = [makePublisher('one'), makePublisher('other'), makePublisher('stranger')]
    const { context, names } = await start(one, other)
    const verdicts = (): Record<string, string> => Object.fromEntries(explainImage(context, WEB).names.map(({ publisher, accepted, verdict }): [string, string] => [publisher.split(':')[0] ?? '', `${accepted}: ${verdict}`]))
    expect(() => { explainImage(context, WEB) }).toThrow(/found no such image/)

    await names.accept(stranger.sign('web', someHash('c')))
    expect(verdicts()).toEqual({ stranger: 'false: no key of its publisher is in trust.keys' })
    expect(explainImage(context, WEB)).toMatchObject({ narHash: null, state: null, why: 'no image of this host has the name' })

    await names.accept(one.sign('web', someHash('a'), { seq: 5 }))
    expect(verdicts()['one']).toBe('true: its image is not here: narvik fetch one/web')
    await names.accept(other.sign('web', someHash('b')))
    expect(verdicts()['one']).toMatch(/^false: other says that it is sha256-.*: ask for one\/web$/)

    await expectFailure(names.accept(one.sign('web', someHash('a'), { seq: 4 })), 'refused', /needed one above 5/)
    expect(explainImage(context, WEB).refusedNames).toMatchObject([{ name: 'web', reason: expect.stringMatching(/found sequence number 4, needed one above 5/) as string }])
    expect(explainImage(context, { ...WEB, publisher: 'other' }).names).toHaveLength(1)

    const old = one.sign('web', someHash('a'), { seq: 9, publishedAt: 0, expires: 1000 })
    context.catalog.names.accept({ record: readNameRecord(old).record, value: old, own: false })
    expect(verdicts()['one']).toMatch(/newer one of its publisher was seen, number 9|it expired on 1970-01-01T00:00:01.000Z: one has to publish it again/)
  })
})
