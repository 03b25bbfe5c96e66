import { describe, expect, test } from 'vitest'
import { fingerprintOf, generateSecretKey, publicKeyOf, signFingerprint } from '../../../src/nix/signature.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { presentImage } from '../../../src/tasks/present.ts'
import { FakeFleet, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { someStorePath } from '../../helpers/images.ts'

const key = generateSecretKey('fleet-1')
const trust = { keys: [publicKeyOf(key)], needed: { 'nar-hash': 0, 'store-path': 1, 'name': 1 } }
const storePath = someStorePath(1)

/** The image, as a peer describes it that says which store path it is. */
function described(image: TestImage, { isSigned = false } = {}): TestImage {
  const { narHash, narSize } = image.metadata
  const signatures = isSigned ? [signFingerprint(fingerprintOf({ path: storePath, narHash, narSize, references: [] }), key)] : []
  return { ...image, metadata: { ...image.metadata, storePath, signatures } }
}

describe('an image that is asked for', () => {
  test.each([
    ['nar-hash', 'verified'],
    ['store-path', 'rejected'],
    ['name', 'rejected'],
  ] as const)('by %s without a signature ends %s', async (askedBy, state) => {
    const fleet = await FakeFleet.start({ settings: { trust } })
    const { catalog, content } = fleet.context
    const image = described(await makeImage(someTree()))
    await fleet.add('giver', image)
    catalog.create({ narHash: image.narHash, source: 'fetch', place: 'content', name: 'web', askedBy })
    const fetched = fetchImage(fleet.context, { ref: { kind: 'name', name: 'web' } })
    if (state === 'verified') await fetched
    else await expect(fetched).rejects.toMatchObject({ code: 'refused' })
    const row = catalog.get(image.narHash)
    expect(row?.state).toBe(state)
    expect(row === undefined ? undefined : presentImage(content, row)).toMatchObject({ storePath: null, vouchedBy: null })
    expect(fleet.announces(image.narHash)).toBe(state === 'verified')
    expect(fleet.banned.size).toBe(0)
  })

  test('in two ways at once is given to the one who needs no signature', async () => {
    const fleet = await FakeFleet.start({ settings: { trust } })
    const { catalog } = fleet.context
    const image = described(await makeImage(someTree()))
    await fleet.add('giver', image)
    catalog.create({ narHash: image.narHash, source: 'fetch', place: 'content' })
    catalog.describe(image.narHash, image.metadata, null)
    const byHash = fetchImage(fleet.context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
    const byPath = fetchImage(fleet.context, { ref: { kind: 'store-path', storePath } })
    const [hash, path] = await Promise.allSettled([byHash, byPath])
    expect(hash).toMatchObject({ status: 'fulfilled', value: { state: 'verified' } })
    expect(path).toMatchObject({ status: 'rejected', reason: { code: 'refused' } })
    expect(catalog.get(image.narHash)?.state).toBe('verified')
  })

  test('is verified with the signature that only another provider has', async () => {
    const fleet = await FakeFleet.start({ settings: { trust } })
    const { catalog } = fleet.context
    const image = await makeImage(someTree())
    await fleet.add('giver', described(image))
    await fleet.add('signer', described(image, { isSigned: true }))
    catalog.create({ narHash: image.narHash, source: 'fetch', place: 'content', name: 'web', askedBy: 'name' })
    expect(await fetchImage(fleet.context, { ref: { kind: 'name', name: 'web' } })).toMatchObject({ state: 'verified', vouchedBy: 'signatures', storePath })
  })
})
