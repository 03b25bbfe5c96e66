import { readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { NameBook } from '../../../src/p2p/names.ts'
import { publisherId, readNameRecord } from '../../../src/image/name-record.ts'
import { parsePublicKey } from '../../../src/nix/signature.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { makePrivate } from '../../../src/tasks/make-private.ts'
import { findPublished, keepNames, publishName } from '../../../src/tasks/published-names.ts'
import { lookUp } from '../../../src/tasks/refs.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'
import { makePublisher, type Publisher } from '../../helpers/names.ts'

const WEB = { kind: 'name', name: 'web' } as const

async function start(...publishers: Publisher[]): Promise<FakeFleet> {
  const keys = publishers.map(({ publicKey }) => parsePublicKey(publicKey))
  return FakeFleet.start({ settings: { trust: { keys, needed: { 'nar-hash': 0, 'store-path': 1, 'name': 1 } } } })
}

/** What the DHT answers from now on for the name of a record. */
function announce(fleet: FakeFleet, value: Uint8Array): void {
  const { record } = readNameRecord(value)
  fleet.names.found.set(`${publisherId(record.publisher)}/${record.name}`, { record, value })
}

async function addImage(fleet: FakeFleet, seed: number): Promise<TestImage> {
  const image = await makeImage(someTree(50_000, seed))
  await fleet.add(`peer-${seed}`, image)
  return image
}

describe('a fetch by name', () => {
  it('takes what a trusted publisher has named so, by the newest record, and moves the name on', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const { context } = fleet
    const [first, second] = [await addImage(fleet, 3), await addImage(fleet, 5)]
    announce(fleet, publisher.sign('web', first.narHash, { seq: 1 }))
    expect(await fetchImage(context, { ref: WEB })).toMatchObject({ state: 'verified', name: 'web', askedBy: 'name', publisher: publisherId(publisher.publicKey) })
    announce(fleet, publisher.sign('web', second.narHash, { seq: 2 }))
    const moved = await fetchImage(context, { ref: { ...WEB, publisher: 'fleet-1' } })
    expect(moved.narHash.equals(second.narHash)).toBe(true)
    expect(context.catalog.get(first.narHash)).toMatchObject({ name: null, state: 'verified' })
    expect(await readlink(join(context.content.dataDir, 'by-name', 'web'))).toContain(second.narHash.toNix32())
    expect(lookUp(context.catalog, { ...WEB, publisher: 'fleet-1' })?.narHash.equals(second.narHash)).toBe(true)
  })

  it('does not take a name from an image that this host has named itself', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const [own, other] = [await makeImage(someTree(1000, 7)), await addImage(fleet, 3)]
    await importImage(fleet.context, { path: own.path, name: 'web' })
    announce(fleet, publisher.sign('web', other.narHash))
    expect((await fetchImage(fleet.context, { ref: WEB })).name).toBeNull()
    expect(fleet.context.catalog.getByName('web')?.narHash.equals(own.narHash)).toBe(true)
  })

  // Watches that whose word is noted of an image does not make its name the publisher's (name-image.ts).
  it('leaves an image of this host the name that this host has given it, however often it is fetched', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const { context } = fleet
    const own = await makeImage(someTree(1000, 7))
    await importImage(context, { path: own.path, name: 'mine' })
    announce(fleet, publisher.sign('web', own.narHash))
    for (const time of ['first', 'second']) expect(await fetchImage(context, { ref: WEB }), time).toMatchObject({ name: 'mine', publisher: publisherId(publisher.publicKey) })
    expect(await readlink(join(context.content.dataDir, 'by-name', 'mine'))).toContain(own.narHash.toNix32())
  })

  it('takes nobody\'s word who is not trusted', async () => {
    const fleet = await start(makePublisher())
    const image = await addImage(fleet, 3)
    announce(fleet, makePublisher('stranger').sign('web', image.narHash))
    await expectFailure(fetchImage(fleet.context, { ref: WEB }), 'not-found', /no name that a trusted key has published/)
    await expectFailure(fetchImage(fleet.context, { ref: { ...WEB, publisher: 'stranger' } }), 'refused', /no trusted key of the name stranger/)
  })

  // Watches that what has expired is told from what was never published, on the word of a trusted publisher alone (names.ts, published-names.ts).
  it('says of a name that was not heard of while it was valid that it has expired, and leaves those of this host alone', async () => {
    const [publisher, stranger] = [makePublisher(), makePublisher('stranger')]
    const fleet = await start(publisher)
    const image = await addImage(fleet, 3)
    const past = { publishedAt: Date.now() - 2000, expires: Date.now() - 1000 }
    const lookFor = (name: string): Promise<unknown> => fetchImage(fleet.context, { ref: { kind: 'name', name } })
    announce(fleet, publisher.sign('web', image.narHash, past))
    await expectFailure(lookFor('web'), 'refused', new RegExp(`what fleet-1:.* published expired on ${new Date(past.expires).toISOString()}`))
    // Whatever is refused after it, it is the publisher's.
    announce(fleet, stranger.sign('web', image.narHash, { publisher: publisher.publicKey }))
    await expectFailure(lookFor('web'), 'refused', /expired on/)
    await expectFailure(fleet.names.accept(stranger.sign('other', image.narHash, past)), 'refused', /a record that expired on/)
    await expectFailure(lookFor('other'), 'not-found', /no name that a trusted key has published/)
    announce(fleet, stranger.sign('forged', image.narHash, { ...past, publisher: publisher.publicKey }))
    await expectFailure(lookFor('forged'), 'not-found', /no name that a trusted key has published/)
    const own = await makeImage(someTree(1000, 7))
    await importImage(fleet.context, { path: own.path, name: 'web' })
    expect(await lookFor('web')).toMatchObject({ name: 'web', state: 'verified' })
  })

  it('asks whose name is meant where publishers disagree, and not where they agree', async () => {
    const [one, two] = [makePublisher('one'), makePublisher('two')]
    const fleet = await start(one, two)
    const [first, second] = [await addImage(fleet, 3), await addImage(fleet, 5)]
    announce(fleet, one.sign('web', first.narHash))
    announce(fleet, two.sign('web', second.narHash))
    await expectFailure(fetchImage(fleet.context, { ref: WEB }), 'conflict', /one\/web is .*two\/web is/)
    expect((await findPublished(fleet.context, { name: 'web', publisher: 'two' }))?.narHash.equals(second.narHash)).toBe(true)
    announce(fleet, two.sign('web', first.narHash, { seq: Date.now() + 1 }))
    expect((await findPublished(fleet.context, WEB))?.narHash.equals(first.narHash)).toBe(true)
  })

  it('needs further signatures where the policy asks for more than the publisher\'s', async () => {
    const publisher = makePublisher()
    const keys = [parsePublicKey(publisher.publicKey)]
    const fleet = await FakeFleet.start({ settings: { trust: { keys, needed: { 'nar-hash': 0, 'store-path': 1, 'name': 2 } } } })
    const image = await addImage(fleet, 3)
    announce(fleet, publisher.sign('web', image.narHash))
    await expectFailure(fetchImage(fleet.context, { ref: WEB }), 'refused', /2 needed/)
  })
})

describe('an older record', () => {
  // Guard: what the catalog remembers, as the book of the DHT begins anew at each start.
  it('is refused after a restart as before, and the one that was seen stays in force', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const [before, after] = [someHash('before'), someHash('after')]
    announce(fleet, publisher.sign('web', after, { seq: 2 }))
    await findPublished(fleet.context, WEB)
    fleet.names.book = new NameBook()
    announce(fleet, publisher.sign('web', before, { seq: 1 }))
    expect((await findPublished(fleet.context, WEB))?.narHash.equals(after)).toBe(true)
  })

  it('is not taken because the newer one has expired', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const now = Date.now()
    const { record, value } = { value: publisher.sign('web', someHash('after'), { seq: 2, publishedAt: now - 2000, expires: now - 1000 }), ...readNameRecord(publisher.sign('web', someHash('after'), { seq: 2, publishedAt: now - 2000, expires: now - 1000 })) }
    fleet.context.catalog.names.accept({ record, value, own: false })
    announce(fleet, publisher.sign('web', someHash('before'), { seq: 1 }))
    await expectFailure(findPublished(fleet.context, WEB), 'refused', /sequence number 1, needed one above 2/)
    fleet.names.found.clear()
    fleet.names.book = new NameBook()
    await expectFailure(findPublished(fleet.context, WEB), 'refused', /expired on/)
  })
})

describe('publishing', () => {
  it('needs the image here, verified and not private, and keeps the record after a restart', async () => {
    const publisher = makePublisher()
    const fleet = await start(publisher)
    const { context } = fleet
    const image = await makeImage(someTree(1000, 7))
    const value = publisher.sign('web', image.narHash)
    await expectFailure(publishName(context, value), 'conflict', /found no verified/)
    const row = await importImage(context, { path: image.path })
    makePrivate(context, { ref: { kind: 'nar-hash', narHash: row.narHash }, private: true })
    await expectFailure(publishName(context, value), 'refused', /private/)
    makePrivate(context, { ref: { kind: 'nar-hash', narHash: row.narHash }, private: false })
    await publishName(context, value)
    expect(fleet.names.kept).toHaveLength(1)
    await expectFailure(publishName(context, publisher.sign('web', image.narHash, { seq: 1 })), 'refused', /needed one above/)
    fleet.names.book = new NameBook()
    await expectFailure(publishName(context, publisher.sign('web', image.narHash, { seq: 1 })), 'refused', /seen before/)
    const { record: { seq, publishedAt, expires } } = readNameRecord(value)
    await expectFailure(publishName(context, publisher.sign('web', image.narHash, { seq, publishedAt, expires: expires - 1 })), 'refused', /seen before/)
    fleet.names.kept.length = 0
    fleet.names.book = new NameBook()
    keepNames(context)
    await expect.poll(() => fleet.names.kept.length).toBe(1)
  })
})
