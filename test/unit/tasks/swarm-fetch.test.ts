import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { ChunkList } from '../../../src/image/chunk-list.ts'
import { ChunkSet } from '../../../src/image/chunk-set.ts'
import { decodeManifest, encodeManifest, manifestDigest } from '../../../src/image/manifest.ts'
import type { Evidence } from '../../../src/image/verdict.ts'
import { MAX_SWARM_SOURCES } from '../../../src/limits.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, flipped, gate, makeImage, type TestImage } from '../../helpers/fake-fleet.ts'
import { regular } from '../../helpers/nar-bytes.ts'

const MIB = 1024 * 1024
const refOf = ({ narHash }: TestImage) => ({ ref: { kind: 'nar-hash' as const, narHash } })

/** Bytes that no two chunks have in common. */
function contents(size: number, seed = 1): Buffer {
  const words = new Uint32Array(size / 4)
  let state = seed
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state
  }
  return Buffer.from(words.buffer)
}

const disk = (size = 3 * MIB, seed = 1) => makeImage(regular(contents(size, seed)))

function evidenceOf({ context }: FakeFleet, { narHash }: TestImage, to: 'rejected' | 'verified'): Evidence | undefined {
  return context.catalog.journal(narHash).findLast(entry => entry.to === to)?.evidence ?? undefined
}

/** The manifest of another image: for whoever sends that one, every chunk is right. */
async function forged(image: TestImage, at: number): Promise<{ manifest: Uint8Array, nar: Buffer, digest: string }> {
  const nar = flipped(image.nar, at)
  const other = await makeImage(regular(nar.subarray(96, 96 + 3 * MIB)))
  return { manifest: other.manifest, nar: other.nar, digest: manifestDigest(other.manifest) }
}

/** The data directory of a host that stopped when it had half of the image. */
async function stoppedHalfWay(image: TestImage): Promise<string> {
  const host = await FakeFleet.start({ settings: { stallMs: 1000 } })
  await host.add('one', image, { have: half(image, false) })
  await expectFailure(fetchImage(host.context, refOf(image)), 'no-provider', /needed a provider/)
  const { dataDir } = host.context.content
  host.context.content.close()
  host.context.catalog.close()
  return dataDir
}

/** Half of the chunks of an image. */
function half(image: TestImage, odd: boolean): ChunkSet {
  const { chunks: { count } } = decodeManifest(image.manifest)
  const set = new ChunkSet(count)
  for (let chunk = odd ? 1 : 0; chunk < count; chunk += 2) set.add(chunk)
  return set
}

describe('an image in chunks', () => {
  it('comes from several peers that have parts of it, and the books say which', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start()
    const even = await fleet.add('even', image, { have: half(image, false) })
    const odd = await fleet.add('odd', image, { have: half(image, true) })
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    const { peers = [], sources } = evidenceOf(fleet, image, 'verified') ?? {}
    expect(peers.map(({ peerId, outcome }) => [peerId, outcome]).sort()).toEqual([['even', 'used'], ['odd', 'used']])
    expect(peers.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(image.nar.length)
    expect(sources).toEqual({ reused: [], zeros: 0, wasted: 0 })
    expect([...even.sent, ...odd.sent].sort((a, b) => a - b)).toEqual(Array.from({ length: decodeManifest(image.manifest).chunks.count }, (_, chunk) => chunk))
    expect(even.asked).toEqual([])
    expect(fleet.announces(image.narHash)).toBe(true)
  })

  it('is asked for once where it says the same several times', async () => {
    const part = contents(2 * MIB)
    const image = await makeImage(regular(Buffer.concat([part, part, part])))
    const fleet = await FakeFleet.start()
    const peer = await fleet.add('peer', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    const { chunks } = decodeManifest(image.manifest)
    const hashes = peer.sent.map(chunk => Buffer.from(chunks.hash(chunk)).toString('hex'))
    expect(new Set(hashes).size).toBe(hashes.length)
    const { peers = [], sources } = evidenceOf(fleet, image, 'verified') ?? {}
    const [received = 0] = peers.map(({ bytes }) => bytes)
    expect(received).toBeLessThan(2.5 * MIB)
    expect(sources).toEqual({ reused: [{ narHash: image.narHash.toSri(), bytes: image.nar.length - received }], zeros: 0, wasted: 0 })
  })

  it('comes in one stream where it is small', async () => {
    const image = await disk(MIB - 4096)
    const fleet = await FakeFleet.start()
    const peer = await fleet.add('peer', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(peer.asked).toEqual([0])
    expect(peer.sent).toEqual([])
  })

  it('comes in one stream where its manifest does not list them, which is found out where it should', async () => {
    const image = await disk()
    const manifest = encodeManifest(decodeManifest(image.manifest).listing, ChunkList.none())
    const digest = manifestDigest(manifest)
    const fleet = await FakeFleet.start()
    const peer = await fleet.add('peer', image, { manifest, metadata: { manifestDigest: digest }, record: { manifestDigest: digest } })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /its manifest|manifest/)
    expect([peer.asked, peer.sent]).toEqual([[0], []])
    expect([...fleet.banned.keys()]).toEqual(['peer'])
  })

  it('is given on while it is received, and passed on without vouching for it', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start()
    const { opened, open: letGo } = gate()
    let seen = 0
    await fleet.add('peer', image, { before: () => ++seen > 2 ? opened : undefined })
    const fetching = fetchImage(fleet.context, refOf(image))
    await vi.waitFor(() => { expect(fleet.announces(image.narHash)).toBe(true) }, 10_000)
    const receiving = fleet.context.receiving.get(image.narHash)
    expect(receiving?.have.size).toBeGreaterThan(0)
    const [run] = receiving?.have.runs(1) ?? []
    if (receiving === undefined || run === undefined) throw new Error('nothing is here')
    const { chunks } = decodeManifest(image.manifest)
    const bytes = await receiving.read(run, { signal: new AbortController().signal })
    expect(Buffer.from(bytes).equals(image.nar.subarray(chunks.offset(run.first), chunks.offset(run.first + 1)))).toBe(true)
    letGo()
    await fetching
    expect(fleet.context.receiving.get(image.narHash)).toBeUndefined()
    expect(receiving.gone.aborted).toBe(false)
    // What was open goes on from where the tree is now.
    expect(Buffer.from(await receiving.read(run, { signal: new AbortController().signal })).equals(Buffer.from(bytes))).toBe(true)
  })

  it('is withdrawn where it can not be finished', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    await fleet.add('peer', image, { have: half(image, false) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /needed a provider/)
    expect(fleet.announces(image.narHash)).toBe(false)
    expect(fleet.context.catalog.get(image.narHash)?.state).toBe('wanted')
  })
})

describe('sources that have nothing more to give', () => {
  it('make room for a peer that has, and are not blamed', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { providerWaitMs: 60_000 } })
    const even = half(image, false)
    for (let number = 0; number < MAX_SWARM_SOURCES; number++) await fleet.add(`even ${number}`, image, { have: even })
    const fetching = fetchImage(fleet.context, refOf(image))
    await vi.waitFor(() => { expect(fleet.context.receiving.get(image.narHash)?.have.size).toBe(even.size) }, 30_000)
    // All places are taken: nobody looks for providers.
    const late = await fleet.add('late', image)
    fleet.context.receiving.get(image.narHash)?.met('late')
    expect((await fetching).state).toBe('verified')
    expect(late.sent.length).toBeGreaterThan(0)
    const { peers = [] } = evidenceOf(fleet, image, 'verified') ?? {}
    expect(peers.filter(({ outcome }) => outcome !== 'used')).toEqual([])
  })
})

describe('a peer that owes chunks and sends none', () => {
  // Watches the time without a chunk from a peer that was asked for some (#leaveLate, sources.ts): the session itself may be silent for ever.
  it('is left after its time, and said to have sent nothing', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { stallMs: 300, providerWaitMs: 2000 } })
    await fleet.add('silent', image, { before: () => new Promise(() => undefined) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /from peer silent: found no chunk for 300 ms, needed some/)
    expect([...fleet.banned.keys()]).toEqual([])
  })
})

describe('a peer that can not read a chunk', () => {
  it('is asked again in another session where nobody else has it', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { providerWaitMs: 60_000 } })
    let reads = 0
    await fleet.add('peer', image, { before: () => { if (++reads === 3) throw new Error('not now') } })
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(evidenceOf(fleet, image, 'verified')?.peers).toMatchObject([{ peerId: 'peer', outcome: 'used' }])
  })
})

describe('a peer that sends a wrong chunk', () => {
  it('is banned after the first one and named, and the image is fetched from the others', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start()
    const all = Buffer.from(image.nar.map((byte, index) => index % 5000 === 4999 ? byte ^ 1 : byte))
    await fleet.add('liar', image, { nar: all })
    const honest = [await fleet.add('one', image), await fleet.add('two', image), await fleet.add('three', image)]
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    const { peers = [], sources } = evidenceOf(fleet, image, 'verified') ?? {}
    const liar = peers.find(({ peerId }) => peerId === 'liar')
    if (liar !== undefined) {
      expect(liar).toMatchObject({ bytes: 0, outcome: 'lied', detail: expect.stringMatching(/its chunk \d+, at byte \d+ of the NAR, was not what its hash says/) as unknown })
      expect([...fleet.banned.keys()]).toEqual(['liar'])
      expect(sources?.wasted).toBeGreaterThan(0)
      expect(liar.wasted).toBeLessThanOrEqual(2 * 256 * 1024)
    }
    expect(honest.reduce((sum, { sent }) => sum + sent.length, 0)).toBeGreaterThanOrEqual(decodeManifest(image.manifest).chunks.count)
  })

  it('is named where nobody else has the image, which stays wanted', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    await fleet.add('liar', image, { nar: Buffer.from(image.nar.map(byte => byte ^ 1)) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /liar is banned|liar/)
    expect([...fleet.banned.keys()]).toEqual(['liar'])
    const row = fleet.context.catalog.get(image.narHash)
    expect(row?.state).toBe('wanted')
    const interrupted = fleet.context.catalog.journal(image.narHash).findLast(({ event }) => event === 'interrupt')
    expect(interrupted?.evidence?.peers).toEqual([expect.objectContaining({ peerId: 'liar', outcome: 'lied' })])
  })
})

describe('a forged manifest', () => {
  it('of which all peers agree leaves the image rejected with both hashes', async () => {
    const image = await disk()
    const { manifest, nar, digest } = await forged(image, 2 * MIB)
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    for (const name of ['one', 'two', 'three']) await fleet.add(name, image, { manifest, nar, metadata: { manifestDigest: digest }, record: { manifestDigest: digest } })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /the tree hashes to sha256-.*, not to sha256-/)
    const evidence = evidenceOf(fleet, image, 'rejected')
    const judge = evidence?.verdict?.stages.find(({ stage }) => stage === 'nar-hash')
    expect(judge).toMatchObject({ verdict: 'fail', expected: image.narHash.toSri() })
    expect(judge?.found).not.toBe(image.narHash.toSri())
    // Those who sent honest chunks of it are not to blame, but who vouched for it is.
    expect(evidence?.peers?.filter(({ outcome }) => outcome === 'lied')).toHaveLength(1)
    expect(fleet.announces(image.narHash)).toBe(false)
    expect(await readdir(join(fleet.context.content.dataDir, 'images'))).toEqual([])
  })

  it('costs no more than a round where an honest peer is there', async () => {
    const image = await disk()
    const { manifest, nar, digest } = await forged(image, 2 * MIB)
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    for (const name of ['one', 'two']) await fleet.add(name, image, { manifest, nar, metadata: { manifestDigest: digest }, record: { manifestDigest: digest } })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(fleet.banned.has('honest')).toBe(false)
    expect(fleet.context.catalog.journal(image.narHash).filter(({ to }) => to === 'rejected').length).toBeLessThanOrEqual(1)
  })

  it('that is passed on condemns nobody', async () => {
    const image = await disk()
    const { manifest, nar, digest } = await forged(image, 2 * MIB)
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    await fleet.add('one', image, { manifest, nar, unverified: true, metadata: { manifestDigest: digest }, record: { manifestDigest: null } })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'verification-failed', /not to sha256-/)
    expect([...fleet.banned.keys()]).toEqual([])
    expect(evidenceOf(fleet, image, 'rejected')?.notes).toEqual([expect.stringMatching(/nobody vouched for it/)])
  })

  it('of which nobody has a chunk is left for another', async () => {
    const image = await disk()
    const { manifest, digest } = await forged(image, 2 * MIB)
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    const { chunks: { count } } = decodeManifest(manifest)
    await fleet.add('empty', image, { manifest, have: new ChunkSet(count), metadata: { manifestDigest: digest }, record: { manifestDigest: digest } })
    await fleet.add('honest', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })
})

describe('going on with an image in chunks', () => {
  it('asks for nothing again that was proven, and other peers may send the rest', async () => {
    const image = await disk()
    const dataDir = await stoppedHalfWay(image)

    const again = await FakeFleet.start({ dataDir })
    const other = await again.add('two', image)
    expect((await fetchImage(again.context, refOf(image))).state).toBe('verified')
    expect(other.sent.every(chunk => chunk % 2 === 1)).toBe(true)
    const { peers = [] } = evidenceOf(again, image, 'verified') ?? {}
    expect(peers.map(({ peerId }) => peerId).sort()).toEqual(['one', 'two'])
    expect(peers.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(image.nar.length)
  })

  it('fetches again what is damaged on disk, before anybody is blamed', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    const one = await fleet.add('one', image, { have: half(image, false) })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /needed a provider/)
    const handle = await open(fleet.context.content.quarantineTree(image.narHash), 'r+')
    const { chunks } = decodeManifest(image.manifest)
    await handle.write(Buffer.from('damage'), 0, 6, chunks.offset(2) - 96 + 1000)
    await handle.close()
    one.isGone = true
    const two = await fleet.add('two', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned.keys()]).toEqual([])
    expect(two.sent.filter(chunk => chunk % 2 === 0)).toEqual([2])
    expect(evidenceOf(fleet, image, 'rejected')?.notes).toEqual([expect.stringMatching(/1 chunks on disk are not what was received/)])
  })
})

describe('an image in chunks that is gone on with', () => {
  it('takes no place from others while nobody has it', async () => {
    const [image, other] = [await disk(), await disk(2 * MIB, 7)]
    const dataDir = await stoppedHalfWay(image)

    const again = await FakeFleet.start({ dataDir, settings: { providerWaitMs: 60_000 } })
    again.context.queue.configure(1)
    const lookedUp = vi.spyOn(again.context.node.router, 'find')
    const waiting = fetchImage(again.context, refOf(image))
    await vi.waitFor(() => { expect(lookedUp).toHaveBeenCalled() }, 10_000)
    await again.add('peer', other)
    expect((await fetchImage(again.context, refOf(other))).state).toBe('verified')
    expect(again.context.jobs.find(image.narHash)?.progress.phase).toBe('finding')
    await again.add('two', image)
    expect((await waiting).state).toBe('verified')
  })

  it('is told of when nobody was found in time, and gets that time again to meet a host that has the other half', async () => {
    const image = await disk()
    const dataDir = await stoppedHalfWay(image)
    const again = await FakeFleet.start({ dataDir, settings: { providerWaitMs: 3000 } })
    const fetching = fetchImage(again.context, refOf(image))
    fetching.catch(() => undefined)
    await vi.waitFor(() => { expect(again.announces(image.narHash)).toBe(true) }, 20_000)
    const odd = await again.add('odd', image, { have: half(image, true), unverified: true })
    expect((await fetching).state).toBe('verified')
    expect(odd.sent.every(chunk => chunk % 2 === 1)).toBe(true)
  })

  it('is finished without a provider where this host has got the rest meanwhile', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { stallMs: 1000 } })
    const have = half(image, false)
    // The first and the last chunk are of this image alone.
    have.add(have.capacity - 1)
    const one = await fleet.add('one', image, { have })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /needed a provider/)
    one.isGone = true
    fleet.banned.set('one', 'nobody is left')
    const { narHash } = await importImage(fleet.context, { path: (await makeImage(regular(Buffer.concat([contents(3 * MIB), Buffer.from('more')])))).path })
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect(evidenceOf(fleet, image, 'verified')?.sources?.reused.map(each => each.narHash)).toEqual([narHash.toSri()])
  })
})

describe('a peer that has failed', () => {
  it('is left alone for a while, however often it is met, and asked again after that', async () => {
    const image = await disk()
    const fleet = await FakeFleet.start({ settings: { providerWaitMs: 60_000 } })
    const even = await fleet.add('even', image, { have: half(image, false) })
    const open = vi.spyOn(fleet.context.node, 'open')
    const asked = (): number => open.mock.calls.filter(([peerId]) => peerId === 'odd').length
    const fetching = fetchImage(fleet.context, refOf(image))
    await vi.waitFor(() => { expect(fleet.context.receiving.get(image.narHash)?.have.size).toBe(half(image, false).size) }, 30_000)
    const odd = await fleet.add('odd', image, { answer: 'busy', isSilent: true })
    const receiving = fleet.context.receiving.get(image.narHash)
    receiving?.met('odd')
    await vi.waitFor(() => { expect(asked()).toBe(1) })
    const from = performance.now()
    const opened = await (open.mock.results.at(-1)?.value as ReturnType<typeof open>)
    await vi.waitFor(() => { expect(opened).not.toMatchObject({ stream: { status: 'open' } }) })
    odd.habit = {}
    for (let time = 0; time < 10; time++) receiving?.met('odd')
    expect(asked()).toBe(1)
    expect((await fetching).state).toBe('verified')
    expect(asked()).toBe(2)
    expect(performance.now() - from).toBeGreaterThan(1500)
    expect(even.sent.length + odd.sent.length).toBe(decodeManifest(image.manifest).chunks.count)
  })
})

describe('what this host has already', () => {
  it('is copied and not sent, and the books say from where', async () => {
    const old = contents(3 * MIB)
    const next = Buffer.concat([old.subarray(0, 1 * MIB), contents(1 * MIB, 99), Buffer.alloc(1 * MIB), old.subarray(1 * MIB)])
    const [before, after] = [await makeImage(regular(old)), await makeImage(regular(next))]
    const fleet = await FakeFleet.start()
    await fleet.add('old', before)
    await fetchImage(fleet.context, refOf(before))
    await fleet.add('new', after)
    expect((await fetchImage(fleet.context, refOf(after))).state).toBe('verified')
    const { peers = [], sources } = evidenceOf(fleet, after, 'verified') ?? {}
    const sent = peers.reduce((sum, { bytes }) => sum + bytes, 0)
    const reused = sources?.reused.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0
    expect(sources?.reused.map(({ narHash }) => narHash)).toEqual([before.narHash.toSri()])
    expect(sources?.zeros).toBeGreaterThan(MIB / 2)
    expect(reused).toBeGreaterThan(2 * MIB)
    expect(sent).toBeLessThan(1.6 * MIB)
    expect(sent + reused + (sources?.zeros ?? 0)).toBe(after.nar.length)
  })
})
