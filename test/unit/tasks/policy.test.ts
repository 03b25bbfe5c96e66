import { describe, expect, test } from 'vitest'
import { fingerprintOf, generateSecretKey, publicKeyOf, signFingerprint } from '../../../src/nix/signature.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { presentDetails, presentImage } from '../../../src/tasks/present.ts'
import { quarantineParcels } from '../../../src/tasks/quarantine-parcels.ts'
import { receivePacked } from '../../../src/tasks/receive-packed.ts'
import { settleAll } from '../../../src/tasks/settle.ts'
import type { ImageRow } from '../../../src/store/image-row.ts'
import { lookUp } from '../../../src/tasks/refs.ts'
import { reviewTrust } from '../../../src/tasks/trust.ts'
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
    expect(row === undefined ? undefined : presentImage({ catalog, content }, row)).toMatchObject({ storePath: null, vouchedBy: null })
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

function required([row]: readonly ImageRow[]): ImageRow {
  if (row === undefined) throw new Error('there is no row')
  return row
}

describe('an image that comes packed', () => {
  async function receive(needed: number, { isSigned = false } = {}) {
    const fleet = await FakeFleet.start({ settings: { trust: { ...trust, needed: { ...trust.needed, 'nar-hash': needed } } } })
    const image = described(await makeImage(someTree()), { isSigned })
    const nar = (async function* () { yield await Promise.resolve(image.nar) })()
    const received = receivePacked(fleet.context, {
      metadata: image.metadata, nar, peerId: 'giver', signal: new AbortController().signal,
      quarantine: async parcel => required(await quarantineParcels(fleet.context, [parcel])),
      pass: async proven => required(await settleAll(fleet.context, [proven])),
    })
    return { fleet, image, received }
  }

  test('is refused by the policy, and nobody lied', async () => {
    const { fleet, image, received } = await receive(1)
    await expect(received).rejects.toMatchObject({ code: 'refused' })
    const { catalog, content } = fleet.context
    expect(catalog.get(image.narHash)).toMatchObject({ state: 'rejected', vouchedBy: null })
    expect(catalog.journal(image.narHash).at(-1)).toMatchObject({ event: 'fail', evidence: { peers: [{ peerId: 'giver', outcome: 'used' }] } })
    expect(fleet.banned.size).toBe(0)
    expect(fleet.announces(image.narHash)).toBe(false)
    // Its bytes are judged again, and a provider with the signature is enough.
    await fleet.add('signer', { ...image, metadata: described(image, { isSigned: true }).metadata })
    const fetched = await fetchImage(fleet.context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
    expect(fetched).toMatchObject({ state: 'verified', vouchedBy: 'signatures' })
    expect(lookUp(catalog, { kind: 'store-path', storePath })?.narHash.equals(image.narHash)).toBe(true)
    expect(content.visiblePath(fetched)).not.toBeNull()
  })

  test('without a signature is verified as a claim, which has no closure to be shown', async () => {
    const { fleet, received } = await receive(0)
    const row = await received
    expect(row).toMatchObject({ state: 'verified', vouchedBy: null })
    expect(await presentDetails(fleet.context, row)).toMatchObject({ closure: null, storePath: null })
  })

  test('has a closure where it is signed', async () => {
    const { fleet, received } = await receive(0, { isSigned: true })
    expect(await presentDetails(fleet.context, await received)).toMatchObject({ closure: { paths: 1, missing: [] }, storePath })
  })
})

test('a further store path follows the keys of the configuration as well', async () => {
  const fleet = await FakeFleet.start({ settings: { trust } })
  const { context } = fleet
  const image = await makeImage(someTree())
  await fleet.add('giver', image)
  const { narHash, narSize } = await fetchImage(context, { ref: { kind: 'nar-hash', narHash: image.narHash } })
  const signatures = [signFingerprint(fingerprintOf({ path: storePath, narHash, narSize: narSize ?? 0, references: [] }), key)]
  context.catalog.addStorePath(narHash, { storePath, references: [], deriver: null, ca: null, signatures, vouchedBy: null })
  const isFound = () => lookUp(context.catalog, { kind: 'store-path', storePath }) !== undefined
  expect(isFound()).toBe(false)
  await reviewTrust(context)
  expect(isFound()).toBe(true)
  await reviewTrust({ ...context, settings: { ...context.settings, trust: { ...trust, keys: [] } } })
  expect(isFound()).toBe(false)
})
