/**
 * Members of the fleet that offer an image and mean harm, against one real daemon that wants it. False bytes are in liar.test.ts, repair.test.ts and
 * swarm.test.ts; what a host does with a single malformed message is in test/protocol. There are no decompression bombs, as nothing on the wire is
 * compressed.
 */
import type { Stream } from '@libp2p/interface'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { isNarvikError, messageOf } from '../../src/errors.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import { encodeChunks } from '../../src/image/chunk-list-codec.ts'
import { DIRECTORY, REGULAR } from '../../src/image/listing.ts'
import { manifestDigest } from '../../src/image/manifest.ts'
import { varintLength, writeVarint } from '../../src/image/varint.ts'
import { CHUNKS_PROTOCOL, encodeHolder } from '../../src/p2p/chunks/messages.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { META_PROTOCOL } from '../../src/p2p/meta/messages.ts'
import { NAR_PROTOCOL } from '../../src/p2p/nar/messages.ts'
import { temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { HostilePeer, introductionOf, makeOffer, type OfferedImage, providerKey } from '../helpers/hostile.ts'

const STALL_SECONDS = 2
const WAIT_SECONDS = 1
/** Milliseconds that a fetch from a single liar may take: what it waits for a provider, for one that stalls, and for a header. */
const LONGEST_MS = 70_000
const SMALL = 100_000
const LARGE = 3_000_000

let host: TestDaemon
let fleet: FleetKeys
let dir: string

beforeAll(async () => {
  dir = await temporaryDirectory()
  fleet = fleetKeys(await createFleetKey(join(dir, 'fleet.key')))
  host = await TestDaemon.start({
    env: {
      NARVIK_FLEET_KEY_FILE: join(dir, 'fleet.key'), NARVIK_LOG_LEVEL: 'info', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: String(WAIT_SECONDS), NARVIK_FETCH_STALL_SECONDS: String(STALL_SECONDS),
    },
  })
})

interface Lie {
  readonly what: string
  readonly size: number
  /** What is said of it. */
  readonly reason?: RegExp
  /** What is said in answer to who asks for metadata; by default the truth. */
  readonly meta?: (offer: OfferedImage, stream: Stream) => unknown
  readonly nar?: (offer: OfferedImage, stream: Stream) => unknown
  readonly chunks?: (offer: OfferedImage, stream: Stream) => unknown
}

function say(stream: Stream, ...parts: Uint8Array[]): Promise<void> {
  for (const part of parts) stream.send(Uint8Array.from(part))
  return stream.close()
}

/** Sends without an end, as fast as the other end takes it. */
async function pourInto(stream: Stream, first: Uint8Array): Promise<void> {
  stream.send(Uint8Array.from(first))
  while (stream.status === 'open') {
    if (!stream.send(Buffer.alloc(65_536, 1))) await new Promise(resolve => { for (const event of ['drain', 'close'] as const) stream.addEventListener(event, resolve, { once: true }) })
  }
}

/** The image's manifest with another listing in the place of its own. */
function withListing({ manifest, chunks }: OfferedImage, listing: Uint8Array): Buffer {
  const sections = [listing, encodeChunks(chunks)].map((body, index) => {
    const length = new Uint8Array(varintLength(body.length))
    writeVarint(length, 0, body.length)
    return Buffer.concat([Uint8Array.of(index + 1), length, body])
  })
  return Buffer.concat([manifest.subarray(0, 9), ...sections])
}

/** Says of another manifest that it is the image's. */
function lyingWith(offer: OfferedImage, manifest: Uint8Array): Uint8Array {
  const metadata = JSON.parse(offer.metadata.toString()) as object
  return introductionOf(offer, { manifest, metadata: Buffer.from(JSON.stringify({ ...metadata, manifestDigest: manifestDigest(manifest) })) })
}

/** A directory of one file with that name. */
const named = (name: string): Uint8Array => Buffer.concat([Uint8Array.of(1, DIRECTORY, REGULAR, Buffer.byteLength(name)), Buffer.from(name), Uint8Array.of(0, 0)])
const ok = (length: number): Uint8Array => encodeHeader({ version: 1, status: 'ok', length })
const welcome = encodeHeader({ version: 1, status: 'ok' })

const LIES: readonly Lie[] = [
  // Watch header.ts, meta/client.ts and meta/messages.ts: lengths, counts and hashes of metadata.
  { what: 'says nothing', size: SMALL, meta: () => undefined },
  { what: 'goes before it has said anything', size: SMALL, meta: (_offer, stream) => { stream.abort(new Error('gone')) } },
  { what: 'ends before it has said anything', size: SMALL, meta: (_offer, stream) => stream.close() },
  { what: 'goes in the middle of the manifest', size: SMALL, meta: (offer, stream) => { stream.send(introductionOf(offer).subarray(0, -5)); stream.abort(new Error('gone')) } },
  { what: 'promises a manifest of more than there may be', size: SMALL, meta: (offer, stream) => say(stream, encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength: offer.metadata.length, manifestLength: 2 ** 40 })) },
  { what: 'promises much and sends little', size: SMALL, meta: (offer, stream) => say(stream, encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength: offer.metadata.length, manifestLength: 100_000_000 }), offer.metadata) },
  { what: 'says more than it said it would', size: SMALL, meta: (offer, stream) => pourInto(stream, introductionOf(offer)) },
  { what: 'tells of another image', size: SMALL, meta: (offer, stream) => say(stream, introductionOf(offer, { metadata: Buffer.from(offer.metadata.toString().replace(/sha256-.{43}/, `sha256-${'A'.repeat(43)}`)) })) },
  { what: 'lies about the size', size: SMALL, meta: (offer, stream) => say(stream, introductionOf(offer, { metadata: Buffer.from(offer.metadata.toString().replace(`"narSize":${offer.narSize}`, '"narSize":7')) })) },
  // Watch image/listing.ts and entry.ts: names that are paths, and lists that have no end.
  ...['../escape', '/etc/passwd', '..', '.', '', 'a/b', 'nul\0'].map((name): Lie => ({ what: `lists ${JSON.stringify(name)}`, size: SMALL, reason: /Cannot read a listing/, meta: (offer, stream) => say(stream, lyingWith(offer, withListing(offer, named(name)))) })),
  { what: 'lists a million entries of one name', size: SMALL, reason: /Cannot read a listing/, meta: (offer, stream) => say(stream, lyingWith(offer, withListing(offer, Buffer.concat([Uint8Array.of(1, DIRECTORY), Buffer.alloc(4_000_000, Buffer.from([REGULAR, 1, 97, 0]))])))) },
  // Watch nar/client.ts: lengths and offsets of bodies.
  { what: 'sends fewer bytes than it was asked for', size: SMALL, nar: (offer, stream) => say(stream, ok(offer.narSize), offer.nar.subarray(0, 1000)) },
  { what: 'sends other bytes', size: SMALL, nar: (offer, stream) => say(stream, ok(offer.narSize), Buffer.alloc(offer.narSize)) },
  { what: 'sends bytes without an end', size: SMALL, nar: (offer, stream) => pourInto(stream, Buffer.concat([ok(offer.narSize), offer.nar])) },
  { what: 'sends another range than it was asked for', size: SMALL, nar: (offer, stream) => say(stream, ok(offer.narSize - 1), offer.nar.subarray(1)) },
  { what: 'stops in the middle', size: SMALL, nar: (offer, stream) => { stream.send(Uint8Array.from(Buffer.concat([ok(offer.narSize), offer.nar.subarray(0, 1000)]))) } },
  { what: 'goes in the middle', size: SMALL, nar: (offer, stream) => { stream.send(Uint8Array.from(ok(offer.narSize))); stream.abort(new Error('gone')) } },
  // Watch chunks/client.ts and owed.ts: what was not asked for, and what never comes.
  { what: 'welcomes and is silent', size: LARGE, chunks: (_offer, stream) => { stream.send(welcome) } },
  { what: 'announces the same chunks again and again', size: LARGE, chunks: (_offer, stream) => pourInto(stream, Buffer.concat([welcome, encodeHolder({ kind: 'have', runs: [{ first: 0, count: 1 }] }), encodeHolder({ kind: 'have', runs: [{ first: 0, count: 1 }] })])) },
  { what: 'announces chunks that do not exist', size: LARGE, chunks: (offer, stream) => say(stream, welcome, encodeHolder({ kind: 'have', runs: [{ first: offer.chunks.count, count: 1000 }] })) },
  { what: 'has everything and gives nothing', size: LARGE, chunks: (offer, stream) => { stream.send(Uint8Array.from(Buffer.concat([welcome, encodeHolder({ kind: 'have', runs: [{ first: 0, count: offer.chunks.count }] })]))) } },
  { what: 'goes after its welcome', size: LARGE, chunks: (_offer, stream) => { stream.send(welcome); stream.abort(new Error('gone')) } },
  { what: 'ends what nobody wanted', size: LARGE, chunks: (_offer, stream) => say(stream, welcome, encodeHolder({ kind: 'end', id: 77, status: 'done' })) },
]

describe('a provider that lies, stalls or goes', () => {
  it('leaves nothing but a reason behind, in known time and memory, and the next image comes from who is honest', async () => {
    const { rss: before } = await host.memory()
    const liars: { what: string, narHash: string, reason: RegExp | undefined, reached: { yes: boolean } }[] = []
    const offers: [Lie, OfferedImage][] = []
    for (const lie of LIES) offers.push([lie, await makeOffer(dir, lie.size)])
    const offer = await makeOffer(dir, SMALL)
    for (const [lie, offer] of offers) {
      liars.push({ what: lie.what, narHash: offer.narHash.toSri(), reason: lie.reason, reached: await offered(offer, lie) })
    }
    const found = await Promise.all(liars.map(async liar => {
      const start = performance.now()
      const failure = await host.client.fetch({ ref: liar.narHash }).catch((error: unknown) => error)
      return { ...liar, failure, milliseconds: performance.now() - start }
    }))
    for (const { what, failure, reason, reached, milliseconds } of found) {
      // Either nobody is left, and what the liar did is the reason, or the bytes were refused.
      expect(isNarvikError(failure, 'no-provider', 'verification-failed'), `${what}: ${messageOf(failure)}`).toBe(true)
      if (reason !== undefined) expect(messageOf(failure), what).toMatch(reason)
      expect(reached, what).toEqual({ yes: true })
      expect(milliseconds, what).toBeLessThan(LONGEST_MS)
    }
    expect((await host.memory()).rss - before).toBeLessThan(250)
    expect(await host.json<ImageJson[]>('list').then(rows => rows.filter(({ path }) => path !== null))).toEqual([])
    expect(host.log.split('\n').length).toBeLessThan(20 * LIES.length)

    await offered(offer, { what: 'is honest', size: SMALL, nar: (_offer, stream) => say(stream, ok(offer.narSize), offer.nar) })
    expect(await host.json<ImageJson>('fetch', offer.narHash.toSri())).toMatchObject({ state: 'verified' })
  })
})

/** Has a member of its own offer the image, in the way of the lie; says whether it was asked for what it lies about. */
async function offered(offer: OfferedImage, { meta, nar, chunks }: Lie): Promise<{ yes: boolean }> {
  const peer = await HostilePeer.join(host, fleet)
  const reached = { yes: false }
  const answer = async (protocol: string, lie: Lie['meta'], honestly: (stream: Stream) => Promise<void>): Promise<void> => peer.serve(protocol, async stream => {
    if (lie === undefined) return honestly(stream)
    reached.yes = true
    await lie(offer, stream)
  })
  await answer(META_PROTOCOL, meta, stream => say(stream, introductionOf(offer)))
  await answer(NAR_PROTOCOL, nar, stream => stream.close())
  await answer(CHUNKS_PROTOCOL, chunks, stream => stream.close())
  await peer.ask({ type: 'ADD_PROVIDER', key: providerKey(offer.narHash), providers: [peer.asProvider()] })
  return reached
}
