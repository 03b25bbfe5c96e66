/**
 * Members of the fleet that mean harm, against one real daemon: what they ask of it. Each test names the guard that it watches. What a host does
 * with a single malformed message is in test/protocol; banned and surplus peers are in peers.test.ts and peer-limits.test.ts, strangers in
 * fleet.test.ts. There are no decompression bombs, as nothing on the wire is compressed.
 */
import type { Stream } from '@libp2p/interface'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ImageDetailsJson } from '../../src/control/api.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { HEADER_TIMEOUT_MS, MAX_DHT_REQUEST_BYTES, MAX_HALF_OPEN, MAX_HALF_OPEN_PER_ADDRESS, MAX_INBOUND_STREAMS } from '../../src/limits.ts'
import { encodeAsker } from '../../src/p2p/chunks/messages.ts'
import { CHUNKS_PROTOCOL } from '../../src/p2p/chunks/messages.ts'
import { CLOSURE_PROTOCOL } from '../../src/p2p/closure/messages.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { META_PROTOCOL } from '../../src/p2p/meta/messages.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { NAR_PROTOCOL } from '../../src/p2p/nar/messages.ts'
import { createNode } from '../../src/p2p/node.ts'
import { KAD_PROTOCOL } from '../../src/p2p/stack.ts'
import { temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { HostilePeer, knockAt, openFiles, untilEnded } from '../helpers/hostile.ts'
import { MadeUpSource } from '../helpers/bytes.ts'
import { LOOPBACK, PATIENCE_MS, startNode } from '../helpers/nodes.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024
/** Seconds that the daemon waits for a peer to move. */
const STALL_SECONDS = 3
/** Milliseconds by which a loaded machine may be late with its own limits. */
const LATE_MS = 15_000
/** What libp2p itself serves, of which a peer may have one stream or two. */
const LIBP2P = ['/ipfs/ping/1.0.0', '/ipfs/id/push/1.0.0']
const NARVIK = [META_PROTOCOL, NAR_PROTOCOL, CLOSURE_PROTOCOL, CHUNKS_PROTOCOL]

let host: TestDaemon
let fleet: FleetKeys
let image: ImageDetailsJson
let manifestDigest: string

beforeAll(async () => {
  const dir = await temporaryDirectory()
  fleet = fleetKeys(await createFleetKey(join(dir, 'fleet.key')))
  host = await TestDaemon.start({
    // At this level what a peer does may not fill the log.
    env: { NARVIK_FLEET_KEY_FILE: join(dir, 'fleet.key'), NARVIK_FETCH_STALL_SECONDS: String(STALL_SECONDS), NARVIK_LOG_LEVEL: 'info' },
  })
  await makeRawDisk(join(dir, 'disk.raw'), 16 * MIB)
  image = await host.json<ImageDetailsJson>('show', (await host.json<ImageDetailsJson>('import', join(dir, 'disk.raw'))).narHash)
  await serveHonestly()
})

// Whatever was done to it, the daemon answers, serves who is honest, and has not been made to fill its log.
afterEach(async () => {
  await serveHonestly()
  expect(linesOf(host)).toBeLessThan(40)
})

function linesOf({ log }: TestDaemon): number {
  return log.split('\n').length
}

async function serveHonestly(): Promise<void> {
  expect((await host.client.status()).peerId).toBe(host.peerId)
  const narHash = NarHash.parse(image.narHash)
  const honest = await createNode({ logger: silentLogger, source: new MadeUpSource(narHash, 0) }, { listen: [LOOPBACK], fleet, bootstrap: host.addresses, redialMinMs: 100, redialMaxMs: 1000 })
  await honest.start()
  try {
    await honest.waitForPeer(host.peerId, { signal: AbortSignal.timeout(PATIENCE_MS) })
    const told = await fetchMetadata(honest, host.peerId, narHash)
    if (told.status !== 'ok') throw new Error(told.status)
    manifestDigest = told.metadata.manifestDigest ?? ''
    const answer = await fetchNar(honest, host.peerId, narHash, 1 * MIB, 2 * MIB)
    if (answer.status !== 'ok') throw new Error(answer.status)
    let received = 0
    for await (const bytes of answer.body) received += bytes.length
    expect(received).toBe(2 * MIB)
  } finally {
    await honest.stop()
  }
}

/** Sends one byte after the other, as slowly as keeps a stream alive that only looks for signs of life. */
async function trickle(send: (byte: Uint8Array) => unknown, isOpen: () => boolean, bytes: Uint8Array): Promise<void> {
  for (const byte of bytes) {
    if (!isOpen()) return
    send(Uint8Array.of(byte))
    await delay(500)
  }
}

function trickleInto(stream: Stream, bytes: Uint8Array): void {
  void trickle(byte => stream.send(byte), () => stream.status === 'open', bytes).catch(() => undefined)
}

const LONG_HEADER = encodeHeader({ version: 1, narHash: ' '.repeat(1000) })

describe('who is slow', () => {
  // Watches the time for a whole header (serve.ts and chunks/handler.ts), the time for a message of the DHT, and that for a handshake; libp2p's own for a ping and what a peer says of itself.
  it('with a header, a message or a handshake is cut off when the time for the whole of it is up', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const ends: [what: string, ended: Promise<number>][] = []
    for (const protocol of [...NARVIK, KAD_PROTOCOL]) {
      const [silent, slow] = [await peer.open(protocol), await peer.open(protocol)]
      trickleInto(slow, LONG_HEADER)
      ends.push([`${protocol}, silent`, untilEnded(silent)], [`${protocol}, trickling`, untilEnded(slow)])
    }
    for (const protocol of LIBP2P) {
      for (const bytes of [new Uint8Array(0), LONG_HEADER]) {
        const stream = await (await HostilePeer.join(host, fleet)).open(protocol)
        trickleInto(stream, bytes)
        ends.push([`${protocol}, ${bytes.length === 0 ? 'silent' : 'trickling'}`, untilEnded(stream)])
      }
    }
    const [silent, slow] = [await knockAt(host), await knockAt(host)]
    void trickle(byte => slow.socket.write(byte), () => !slow.socket.destroyed, Buffer.alloc(100, '\x13/multistream'))
    ends.push(['a handshake, silent', silent.ended], ['a handshake, trickling', slow.ended])
    for (const [what, ended] of ends) {
      const milliseconds = await Promise.race([ended, delay(HEADER_TIMEOUT_MS + LATE_MS, Infinity, { ref: false })])
      expect(milliseconds, what).toBeLessThan(HEADER_TIMEOUT_MS + LATE_MS)
    }
  })

  // Watches the time without progress (watchdog.ts) where a peer reads nothing of what it asked for, or stops in the middle of a message.
  it('to read, or in the middle of a message, is cut off when it has stalled', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const { rss: before } = await host.memory()
    const { narHash } = image
    const hello = encodeHeader({ version: 1, narHash, manifestDigest })
    const want = encodeAsker({ kind: 'want', id: 1, runs: [{ first: 0, count: 50 }], choice: undefined })
    const requests: [what: string, protocol: string, said: readonly Uint8Array[]][] = [
      ['chunks that are not read', CHUNKS_PROTOCOL, [hello, want]],
      ['half a want', CHUNKS_PROTOCOL, [hello, want.subarray(0, 4)]],
      ...Array.from({ length: 10 }, (_, index): [string, string, Uint8Array[]] => [`NAR ${index} that is not read`, NAR_PROTOCOL, [encodeHeader({ version: 1, narHash, offset: 0, length: image.narSize })]]),
    ]
    const ends = requests.map(async ([what, protocol, said]) => {
      const stream = await peer.open(protocol)
      stream.pause()
      for (const bytes of said) stream.send(Uint8Array.from(bytes))
      if (protocol === NAR_PROTOCOL) await stream.close()
      return { what, milliseconds: await Promise.race([untilEnded(stream), delay(STALL_SECONDS * 1000 + LATE_MS, Infinity, { ref: false })]) }
    })
    for (const { what, milliseconds } of await Promise.all(ends)) expect(milliseconds, what).toBeLessThan(STALL_SECONDS * 1000 + LATE_MS)
    // A window for each stream, and what the runtime keeps: not the bodies, which are ten times as much.
    expect((await host.memory()).rss - before).toBeLessThan(100)
  })
})

/** A header whose length takes a byte more than it needs. */
function inLongerForm(header: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of((header[0] ?? 0) | 0x80, 0), header.subarray(1)])
}

describe('who lies in a request', () => {
  const ask = { version: 1, narHash: 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' }
  const lies: [what: string, protocol: string, bytes: Uint8Array][] = [
    ['a header whose length is too long to be read', META_PROTOCOL, Uint8Array.of(0x80, 0x80, 0x80, 0x01)],
    ['a header of 2 MiB', META_PROTOCOL, Uint8Array.of(0xff, 0xff, 0x7f)],
    ['a length in a longer form', META_PROTOCOL, inLongerForm(encodeHeader(ask))],
    ['a header of deep brackets', META_PROTOCOL, Buffer.concat([Uint8Array.of(0xe0, 0xd4, 0x03), Buffer.alloc(60_000, '[')])],
    ['bytes after the request', META_PROTOCOL, Buffer.concat([encodeHeader(ask), Buffer.alloc(1000)])],
    ['a hash that is a path', META_PROTOCOL, encodeHeader({ ...ask, narHash: '../../etc/passwd' })],
    ['a field too many', META_PROTOCOL, encodeHeader({ ...ask, path: '/etc/passwd' })],
    ['an offset below zero', NAR_PROTOCOL, encodeHeader({ ...ask, offset: -1, length: 1 })],
    ['an offset that no number holds', NAR_PROTOCOL, encodeHeader({ ...ask, offset: 2 ** 60, length: 2 ** 60 })],
    ['a part of a byte', NAR_PROTOCOL, encodeHeader({ ...ask, offset: 0.5, length: 1 })],
    ['too many NARs', CLOSURE_PROTOCOL, encodeHeader({ version: 1, want: 'nars', narHashes: Array.from({ length: 1001 }, () => ask.narHash) })],
    ['no NAR', CLOSURE_PROTOCOL, encodeHeader({ version: 1, want: 'nars', narHashes: [] })],
    ['a digest that is none', CHUNKS_PROTOCOL, encodeHeader({ ...ask, manifestDigest: '/' })],
  ]
  // Watches the bounds and schemas of headers (header.ts and each protocol's messages.ts), and that what a peer does wrong is no warning.
  it('is answered with a reset at once, and with nothing else', async () => {
    const peer = await HostilePeer.join(host, fleet)
    for (const [what, protocol, bytes] of lies) {
      const stream = await peer.open(protocol)
      let received = 0
      stream.addEventListener('message', ({ data }) => { received += data.byteLength })
      // Its end is left open: what is wrong is wrong before it, and not refused for want of time.
      stream.send(Uint8Array.from(bytes))
      expect(await Promise.race([untilEnded(stream), delay(HEADER_TIMEOUT_MS - 1000, Infinity, { ref: false })]), what).toBeLessThan(HEADER_TIMEOUT_MS)
      expect([what, stream.status, received]).toEqual([what, 'reset', 0])
    }
  })

  // Watches the comparison of a range with the NAR's size (tasks/serve.ts, and once more nar/layout.ts).
  it.each([[0, 1], [1, 0], [-1, 2]])('about the range is refused: from byte %i after the end, %i bytes', async (after, length) => {
    const peer = await HostilePeer.join(host, fleet)
    const stream = await peer.open(NAR_PROTOCOL)
    const parts: Uint8Array[] = []
    stream.addEventListener('message', ({ data }) => { parts.push(data.subarray()) })
    stream.send(encodeHeader({ version: 1, narHash: image.narHash, offset: (image.narSize ?? 0) + after, length }))
    await stream.close()
    await untilEnded(stream)
    expect(Buffer.concat(parts).toString()).toContain('"refused"')
  })
})

describe('who comes in numbers', () => {
  // Watches the streams of one protocol that a peer may have (node.ts): surplus ones are reset.
  it('of streams has no more than it may', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const { rss: before } = await host.memory()
    const streams = (await Promise.allSettled(Array.from({ length: 200 }, () => peer.open(NAR_PROTOCOL)))).flatMap(result => result.status === 'fulfilled' ? [result.value] : [])
    for (const stream of streams) if (stream.status === 'open') stream.send(LONG_HEADER.subarray(0, 8))
    // Before the time for their headers is up, which would end all of them.
    const times = await Promise.all(streams.map(stream => Promise.race([untilEnded(stream), delay(HEADER_TIMEOUT_MS / 2, Infinity, { ref: false })])))
    expect(times.filter(milliseconds => milliseconds === Infinity).length).toBeLessThanOrEqual(MAX_INBOUND_STREAMS)
    expect((await host.memory()).rss - before).toBeLessThan(50)
  })

  // Watches the number of connections whose handshake is not over (stack.ts), also of many addresses: more of them are closed as they come.
  it('of half-open connections holds few of them, and lets the others go on', async () => {
    const honest = await startNode({ fleet, bootstrap: host.addresses })
    await honest.waitForPeer(host.peerId, { signal: AbortSignal.timeout(PATIENCE_MS) })
    const before = await openFiles(host.pid)
    const half = await Promise.all(Array.from({ length: 2 * MAX_HALF_OPEN }, (_, index) => knockAt(host, `127.0.1.${1 + index % 32}`)))
    expect(await fetchMetadata(honest, host.peerId, NarHash.parse(image.narHash))).toMatchObject({ status: 'ok' })
    expect(await openFiles(host.pid) - before).toBeLessThan(MAX_HALF_OPEN + 20)
    const times = await Promise.all(half.map(({ ended }) => Promise.race([ended, delay(HEADER_TIMEOUT_MS + LATE_MS, Infinity, { ref: false })])))
    expect(Math.max(...times)).toBeLessThan(HEADER_TIMEOUT_MS + LATE_MS)
    expect(times.filter(milliseconds => milliseconds < HEADER_TIMEOUT_MS / 2).length).toBeGreaterThanOrEqual(MAX_HALF_OPEN)
  })

  // Watches the half-open connections that one address may have (half-open.ts): without it strangers at one address take every place.
  it('of half-open connections, all from one address, keeps no newcomer out', async () => {
    const half = await Promise.all(Array.from({ length: MAX_HALF_OPEN + 44 }, () => knockAt(host, '127.0.0.2')))
    const newcomer = await startNode({ fleet, bootstrap: host.addresses })
    await newcomer.waitForPeer(host.peerId, { signal: AbortSignal.timeout(PATIENCE_MS) })
    const times = await Promise.all(half.map(({ ended }) => ended))
    expect(times.filter(milliseconds => milliseconds < HEADER_TIMEOUT_MS / 2)).toHaveLength(half.length - MAX_HALF_OPEN_PER_ADDRESS)
  })

  // Watches the bytes that a message of the DHT may have (dht-inside.ts): left to itself the DHT holds 4 MiB for each stream that does not end.
  it('of streams of the DHT, each with the start of a long message, fills no memory', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const { rss: before } = await host.memory()
    const streams = await Promise.all(Array.from({ length: 24 }, () => peer.open(KAD_PROTOCOL)))
    const length = Uint8Array.of(0xff, 0xff, 0xff, 0x01)
    for (const stream of streams) stream.send(Uint8Array.from(Buffer.concat([length, Buffer.alloc(2 * MAX_DHT_REQUEST_BYTES)])))
    for (const stream of streams) expect(await Promise.race([untilEnded(stream), delay(HEADER_TIMEOUT_MS / 2, Infinity, { ref: false })])).toBeLessThan(HEADER_TIMEOUT_MS / 2)
    expect((await host.memory()).rss - before).toBeLessThan(40)
  })
})
