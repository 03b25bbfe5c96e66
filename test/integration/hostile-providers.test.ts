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
import { CHUNKS_PROTOCOL, encodeChunksHead, encodeHolder } from '../../src/p2p/chunks/messages.ts'
import { CLOSURE_PROTOCOL } from '../../src/p2p/closure/messages.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { META_PROTOCOL } from '../../src/p2p/meta/messages.ts'
import { NAR_PROTOCOL } from '../../src/p2p/nar/messages.ts'
import { temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { heard, HostilePeer, introductionOf, makeOffer, type OfferedImage, providerKey } from '../helpers/hostile.ts'

const STALL_SECONDS = 2
const WAIT_SECONDS = 3
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
      NARVIK_FLEET_KEY_FILE: join(dir, 'fleet.key'), NARVIK_LOG_LEVEL: 'info', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: String(WAIT_SECONDS), NARVIK_FETCH_STALL_SECONDS: String(STALL_SECONDS), NARVIK_FETCH_AT_ONCE: '64',
    },
  })
})

interface Lie {
  readonly what: string
  readonly size: number
  /** The bytes of the image were right, and what was wrong came after them. */
  readonly isProven?: boolean
  /** What is said of it. */
  readonly reason?: RegExp
  /** What is said in answer to who asks for metadata; by default the truth. */
  readonly meta?: Answer
  readonly nar?: Answer
  readonly chunks?: Answer
  /** The closure is asked for: what is said of its paths, and which NARs are sent; by default the truth of the paths, and no NAR. */
  readonly closure?: { readonly paths?: Answer, readonly nars?: Answer }
}

type Answer = (offer: OfferedImage, stream: Stream, peer: HostilePeer) => unknown

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

/** The last path of a closure, as the holder should describe it. */
function pathOf({ narHash, narSize, manifestDigest }: OfferedImage, changes: object = {}): Uint8Array {
  const storePath = `/nix/store/${narHash.toNix32().slice(0, 32)}-offer`
  return encodeHeader({ narHash: narHash.toSri(), narSize, storePath, references: [], deriver: null, ca: null, signatures: [], manifestDigest, ...changes })
}

const OTHER_PATH = `/nix/store/${'0'.repeat(32)}-other`
const paths = (count: number): Uint8Array => encodeHeader({ version: 1, status: 'ok', count })
const sized = (length: number): Uint8Array => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(length))
  return bytes
}

/** Sends a part of an answer, and is gone. */
async function goAfter(stream: Stream, peer: HostilePeer, ...parts: Uint8Array[]): Promise<void> {
  const bytes = Buffer.concat(parts)
  if (bytes.length > 0) stream.send(Uint8Array.from(bytes))
  // What was sent is not to be lost with the connection: the step that is meant is the one after it.
  await new Promise(resolve => setTimeout(resolve, 50))
  await peer.vanish()
}

const introduced = (offer: OfferedImage): Uint8Array => encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength: offer.metadata.length, manifestLength: offer.manifest.length })
const having = (offer: OfferedImage): Uint8Array => encodeHolder({ kind: 'have', runs: [{ first: 0, count: offer.chunks.count }] })
const firstChunk = (offer: OfferedImage, id = 1): Uint8Array => Buffer.concat([encodeChunksHead(id, { first: 0, count: 1 }, offer.chunks.length(0)), offer.nar.subarray(0, offer.chunks.length(0))])

/** Welcomes, offers everything, waits for the first want, sends a part of what was wanted, and is gone. */
function goWhenAsked(parts: (offer: OfferedImage) => Uint8Array): Answer {
  return async (offer, stream, peer) => {
    const hello = await heard(stream, 1)
    const want = heard(stream, 1)
    stream.send(Uint8Array.from(Buffer.concat([welcome, having(offer)])))
    if (hello !== undefined && await want !== undefined) await goAfter(stream, peer, parts(offer))
  }
}

/** Members that are gone, with their connections, at each step of each protocol. Watch that whoever is waited for is given up (watchdog.ts, ask.ts, chunks/client.ts). */
const GONE: readonly Lie[] = [
  ...([
    ['before the reply', () => []], ['in the middle of the header', offer => [introduced(offer).subarray(0, 9)]], ['after the header', offer => [introduced(offer)]],
    ['in the middle of the metadata', offer => [introduced(offer), offer.metadata.subarray(0, 20)]], ['in the middle of the manifest', offer => [introductionOf(offer).subarray(0, -5)]],
    ['before the end of the stream', offer => [introductionOf(offer)]],
  ] as [string, (offer: OfferedImage) => Uint8Array[]][]).map(([when, parts]): Lie => ({ what: `meta: is gone ${when}`, size: SMALL, meta: (offer, stream, peer) => goAfter(stream, peer, ...parts(offer)) })),
  ...([
    ['before the reply', () => []], ['in the middle of the header', offer => [ok(offer.narSize).subarray(0, 9)]], ['after the header', offer => [ok(offer.narSize)]],
    ['in the middle of the bytes', offer => [ok(offer.narSize), offer.nar.subarray(0, 50_000)]],
  ] as [string, (offer: OfferedImage) => Uint8Array[]][]).map(([when, parts]): Lie => ({ what: `nar: is gone ${when}`, size: SMALL, nar: (offer, stream, peer) => goAfter(stream, peer, ...parts(offer)) })),
  { what: 'chunks: is gone before the welcome', size: LARGE, chunks: (_offer, stream, peer) => goAfter(stream, peer) },
  { what: 'chunks: is gone after the welcome', size: LARGE, chunks: (_offer, stream, peer) => goAfter(stream, peer, welcome) },
  { what: 'chunks: is gone in the middle of what it has', size: LARGE, chunks: (offer, stream, peer) => goAfter(stream, peer, welcome, having(offer).subarray(0, 4)) },
  { what: 'chunks: is gone when it is asked', size: LARGE, chunks: goWhenAsked(() => new Uint8Array(0)) },
  { what: 'chunks: is gone in the middle of a head', size: LARGE, chunks: goWhenAsked(offer => firstChunk(offer).subarray(0, 3)) },
  { what: 'chunks: is gone in the middle of a chunk', size: LARGE, chunks: goWhenAsked(offer => firstChunk(offer).subarray(0, 9000)) },
  { what: 'chunks: is gone after a chunk', size: LARGE, chunks: goWhenAsked(offer => firstChunk(offer)) },
  { what: 'closure: is gone before the paths', size: SMALL, closure: { paths: (_offer, stream, peer) => goAfter(stream, peer) } },
  { what: 'closure: is gone after the header', size: SMALL, closure: { paths: (_offer, stream, peer) => goAfter(stream, peer, paths(1)) } },
  { what: 'closure: is gone in the middle of a path', size: SMALL, closure: { paths: (offer, stream, peer) => goAfter(stream, peer, paths(1), pathOf(offer).subarray(0, 30)) } },
  { what: 'closure: is gone before the NARs', size: SMALL, closure: { nars: (_offer, stream, peer) => goAfter(stream, peer) } },
  { what: 'closure: is gone in the middle of a length', size: SMALL, closure: { nars: (offer, stream, peer) => goAfter(stream, peer, welcome, sized(offer.narSize).subarray(0, 3)) } },
  { what: 'closure: is gone in the middle of a NAR', size: SMALL, closure: { nars: (offer, stream, peer) => goAfter(stream, peer, welcome, sized(offer.narSize), offer.nar.subarray(0, 50_000)) } },
]

/** What a holder of a closure may say that is not so. Watch closure/client.ts: counts, references, sizes, the root, and what is sent of it. */
const CLOSURE_LIES: readonly Lie[] = [
  { what: 'closure: says nothing', size: SMALL, closure: { paths: () => undefined } },
  { what: 'closure: promises more paths than there may be', size: SMALL, reason: /at count/, closure: { paths: (offer, stream) => say(stream, paths(1_000_000), pathOf(offer)) } },
  { what: 'closure: promises two paths and sends one', size: SMALL, closure: { paths: (offer, stream) => say(stream, paths(2), pathOf(offer)) } },
  { what: 'closure: sends more paths than it promised', size: SMALL, reason: /after the last one/, closure: { paths: (offer, stream) => say(stream, paths(1), pathOf(offer), pathOf(offer)) } },
  { what: 'closure: describes another image', size: SMALL, reason: /as the last path/, closure: { paths: (offer, stream) => say(stream, paths(1), pathOf(offer, { narHash: `sha256-${'A'.repeat(43)}=` })) } },
  { what: 'closure: refers to a path that comes later', size: SMALL, reason: /ascending numbers/, closure: { paths: (offer, stream) => say(stream, paths(2), pathOf(offer, { storePath: OTHER_PATH, references: [1] }), pathOf(offer, { references: [0] })) } },
  { what: 'closure: has a path twice', size: SMALL, reason: /twice/, closure: { paths: (offer, stream) => say(stream, paths(2), pathOf(offer), pathOf(offer, { references: [0] })) } },
  { what: 'closure: has a path that nothing needs', size: SMALL, reason: /nothing refers to/, closure: { paths: (offer, stream) => say(stream, paths(2), pathOf(offer, { storePath: OTHER_PATH }), pathOf(offer)) } },
  { what: 'closure: has a path outside the store', size: SMALL, reason: /storePath/, closure: { paths: (offer, stream) => say(stream, paths(1), pathOf(offer, { storePath: '/nix/store/../../etc/passwd' })) } },
  { what: 'closure: pours paths', size: SMALL, closure: { paths: (offer, stream) => pourInto(stream, Buffer.concat([paths(32_768), pathOf(offer)])) } },
  { what: 'closure: describes in more bytes than there may be', size: SMALL, reason: /bytes of paths/, closure: { paths: pourLongPaths } },
  { what: 'closure: lies about a size', size: SMALL, reason: /a NAR of 7 bytes/, closure: { nars: (offer, stream) => say(stream, welcome, sized(7), offer.nar.subarray(0, 7)) } },
  { what: 'closure: promises a NAR without an end', size: SMALL, reason: /a NAR of \d+ bytes/, closure: { nars: (_offer, stream) => pourInto(stream, Buffer.concat([welcome, sized(2 ** 50)])) } },
  { what: 'closure: sends more than was asked for', size: SMALL, isProven: true, closure: { nars: (offer, stream) => pourInto(stream, Buffer.concat([welcome, sized(offer.narSize), offer.nar])) } },
  { what: 'closure: sends other bytes', size: SMALL, closure: { nars: (offer, stream) => say(stream, welcome, sized(offer.narSize), Buffer.alloc(offer.narSize)) } },
  { what: 'closure: stops in the middle of a NAR', size: SMALL, closure: { nars: (offer, stream) => { stream.send(Uint8Array.from(Buffer.concat([welcome, sized(offer.narSize), offer.nar.subarray(0, 1000)]))) } } },
]

/** Paths of the right form, each as long as a header may be. */
async function pourLongPaths(offer: OfferedImage, stream: Stream): Promise<void> {
  const signatures = Array.from({ length: 60 }, (_, number) => `${'k'.repeat(200)}-${number}:${'A'.repeat(86)}==`)
  stream.send(paths(32_768))
  for (let number = 0; stream.status === 'open'; number++) {
    const storePath = `/nix/store/${'0'.repeat(32)}-${number}`
    if (!stream.send(pathOf(offer, { storePath, signatures, references: number === 0 ? [] : [number - 1] }))) await new Promise(resolve => { for (const event of ['drain', 'close'] as const) stream.addEventListener(event, resolve, { once: true }) })
  }
}

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
  { what: 'sends bytes without an end', size: SMALL, isProven: true, nar: (offer, stream) => pourInto(stream, Buffer.concat([ok(offer.narSize), offer.nar])) },
  { what: 'sends another range than it was asked for', size: SMALL, nar: (offer, stream) => say(stream, ok(offer.narSize - 1), offer.nar.subarray(1)) },
  { what: 'stops in the middle', size: SMALL, nar: (offer, stream) => { stream.send(Uint8Array.from(Buffer.concat([ok(offer.narSize), offer.nar.subarray(0, 1000)]))) } },
  { what: 'goes in the middle', size: SMALL, nar: (offer, stream) => { stream.send(Uint8Array.from(ok(offer.narSize))); stream.abort(new Error('gone')) } },
  // Watch chunks/client.ts and owed.ts: what was not asked for, and what never comes.
  { what: 'welcomes and is silent', size: LARGE, chunks: (_offer, stream) => { stream.send(welcome) } },
  { what: 'announces the same chunks again and again', size: LARGE, chunks: (_offer, stream) => pourInto(stream, Buffer.concat([welcome, encodeHolder({ kind: 'have', runs: [{ first: 0, count: 1 }] }), encodeHolder({ kind: 'have', runs: [{ first: 0, count: 1 }] })])) },
  { what: 'announces chunks that do not exist', size: LARGE, chunks: (offer, stream) => say(stream, welcome, encodeHolder({ kind: 'have', runs: [{ first: offer.chunks.count, count: 1000 }] })) },
  { what: 'has everything and gives nothing', size: LARGE, chunks: (offer, stream) => { stream.send(Uint8Array.from(Buffer.concat([welcome, encodeHolder({ kind: 'have', runs: [{ first: 0, count: offer.chunks.count }] })]))) } },
  { what: 'goes after its welcome', size: LARGE, chunks: (_offer, stream) => { stream.send(welcome); stream.abort(new Error('gone')) } },
  { what: 'sends a chunk that nobody wanted', size: LARGE, chunks: (offer, stream) => say(stream, welcome, having(offer), firstChunk(offer, 77)) },
  { what: 'ends what nobody wanted', size: LARGE, chunks: (_offer, stream) => say(stream, welcome, encodeHolder({ kind: 'end', id: 77, status: 'done' })) },
]

describe('a provider that', () => {
  it.each([
    ['lies, stalls or goes', LIES], ['lies about a closure', CLOSURE_LIES], ['is gone with its connections at some step of a protocol', GONE],
  ])('%s leaves nothing but a reason behind, in known time and memory, and the next image comes from who is honest', async (_what, lies) => {
    const { rss: before } = await host.memory()
    const logged = host.log.split('\n').length
    const liars: { what: string, narHash: string, isProven: boolean, closure: boolean, reason: RegExp | undefined, reached: { yes: boolean } }[] = []
    const offers: [Lie, OfferedImage][] = []
    for (const lie of lies) offers.push([lie, await makeOffer(dir, lie.size)])
    const offer = await makeOffer(dir, SMALL)
    for (const [lie, offer] of offers) {
      liars.push({ what: lie.what, narHash: offer.narHash.toSri(), isProven: lie.isProven === true, closure: lie.closure !== undefined, reason: lie.reason, reached: await offered(offer, lie) })
    }
    const found = await Promise.all(liars.map(async liar => {
      // A loaded machine may have found nobody in time.
      for (let attempts = 1; ; attempts++) {
        const start = performance.now()
        const failure = await host.client.fetch({ ref: liar.narHash, closure: liar.closure }).catch((error: unknown) => error)
        if ((liar.reached.yes && liar.reason?.test(messageOf(failure)) !== false) || attempts === 5) return { ...liar, failure, milliseconds: performance.now() - start }
      }
    }))
    for (const { what, isProven, failure, reason, reached, milliseconds } of found) {
      // Either nobody is left, and what the liar did is the reason, or the bytes were refused.
      expect(isProven || isNarvikError(failure, 'no-provider', 'verification-failed'), `${what}: ${messageOf(failure)}`).toBe(true)
      if (reason !== undefined) expect(messageOf(failure), what).toMatch(reason)
      expect(reached, `${what}: ${messageOf(failure)}`).toEqual({ yes: true })
      expect(milliseconds, what).toBeLessThan(LONGEST_MS)
    }
    expect((await host.memory()).rss - before).toBeLessThan(250)
    expect((await host.json<ImageJson[]>('list')).filter(({ path, narHash }) => path !== null && liars.some(liar => !liar.isProven && liar.narHash === narHash))).toEqual([])
    expect(host.log.split('\n').length - logged).toBeLessThan(20 * lies.length)

    await offered(offer, { what: 'is honest', size: SMALL, nar: (_offer, stream) => say(stream, ok(offer.narSize), offer.nar) })
    expect(await host.json<ImageJson>('fetch', offer.narHash.toSri())).toMatchObject({ state: 'verified' })
  })
})

/** Has a member of its own offer the image, in the way of the lie; says whether it was asked for what it lies about. */
async function offered(offer: OfferedImage, { meta, nar, chunks, closure }: Lie): Promise<{ yes: boolean }> {
  const peer = await HostilePeer.join(host, fleet)
  const reached = { yes: false }
  const answer = async (protocol: string, lie: Answer | undefined, honestly: (stream: Stream) => Promise<void>): Promise<void> => peer.serve(protocol, async stream => {
    if (lie === undefined) return honestly(stream)
    reached.yes = true
    await lie(offer, stream, peer)
  })
  await answer(META_PROTOCOL, meta, stream => say(stream, introductionOf(offer)))
  await answer(NAR_PROTOCOL, nar, stream => stream.close())
  await answer(CHUNKS_PROTOCOL, chunks, stream => stream.close())
  await peer.serve(CLOSURE_PROTOCOL, async stream => {
    const asksForPaths = Buffer.from(await heard(stream, 20) ?? []).includes('"want":"paths"')
    const lie = asksForPaths ? closure?.paths : closure?.nars
    reached.yes ||= lie !== undefined
    if (lie !== undefined) await lie(offer, stream, peer)
    else if (asksForPaths) await say(stream, paths(1), pathOf(offer))
    else await say(stream, welcome, sized(0))
  })
  await peer.ask({ type: 'ADD_PROVIDER', key: providerKey(offer.narHash), providers: [peer.asProvider()] })
  return reached
}
