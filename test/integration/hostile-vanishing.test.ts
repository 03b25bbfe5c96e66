/**
 * Members and strangers that are gone in the middle of what they ask of a real daemon: at each step of each protocol, many times over. What a host
 * does when those are gone whom it asks is in hostile-providers.test.ts.
 */
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ImageDetailsJson } from '../../src/control/api.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { MAX_HALF_OPEN_PER_ADDRESS, MAX_SERVED_STREAMS } from '../../src/limits.ts'
import { CHUNKS_PROTOCOL, encodeAsker } from '../../src/p2p/chunks/messages.ts'
import { fetchClosurePaths, fetchNars } from '../../src/p2p/closure/client.ts'
import { CLOSURE_PROTOCOL } from '../../src/p2p/closure/messages.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { META_PROTOCOL } from '../../src/p2p/meta/messages.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { NAR_PROTOCOL } from '../../src/p2p/nar/messages.ts'
import { KAD_PROTOCOL } from '../../src/p2p/stack.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { HostilePeer, openFiles, untilEnded } from '../helpers/hostile.ts'
import { PATIENCE_MS, startNode } from '../helpers/nodes.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024
/** Streams that are open at once, of one protocol. */
const AT_ONCE = 8
/** Rounds after which more have gone while they held a place than there are places of any kind. */
const ROUNDS = 3 * MAX_SERVED_STREAMS / AT_ONCE
/** Rounds after which a peer is gone itself. */
const LIVES = ROUNDS / 2

let host: TestDaemon
let fleet: FleetKeys
let keyFile: string
let image: ImageDetailsJson
let manifestDigest: string
let filesBefore: number
let memoryBefore: number
let linesBefore: number

beforeAll(async () => {
  const dir = await temporaryDirectory()
  keyFile = join(dir, 'fleet.key')
  fleet = fleetKeys(await createFleetKey(keyFile))
  host = await TestDaemon.start({ env: { NARVIK_FLEET_KEY_FILE: keyFile, NARVIK_LOG_LEVEL: 'info' } })
  await makeRawDisk(join(dir, 'disk.raw'), 16 * MIB)
  image = await host.json<ImageDetailsJson>('show', (await host.json<ImageDetailsJson>('import', join(dir, 'disk.raw'))).narHash)
})

/** Has the host do once what it will be asked for, and looks at what it takes. */
async function lookBefore(): Promise<void> {
  manifestDigest = await serveEverything()
  await until(async () => (await host.client.status()).peers === 0, 'the last peer to be gone')
  filesBefore = await openFiles(host.pid)
  memoryBefore = (await host.memory()).rss
  linesBefore = host.log.split('\n').length
}

/** Asks the host for everything that it serves; answers with the digest of the image's manifest. */
async function serveEverything(): Promise<string> {
  const narHash = NarHash.parse(image.narHash)
  const honest = await startNode({ fleet, bootstrap: host.addresses })
  await honest.waitForPeer(host.peerId, { signal: AbortSignal.timeout(PATIENCE_MS) })
  const told = await fetchMetadata(honest, host.peerId, narHash)
  if (told.status !== 'ok') throw new Error(told.status)
  const answer = await fetchNar(honest, host.peerId, narHash, 0, MIB)
  if (answer.status !== 'ok') throw new Error(answer.status)
  let received = 0
  for await (const bytes of answer.body) received += bytes.length
  expect(received).toBe(MIB)
  expect(await fetchClosurePaths(honest, host.peerId, narHash)).toEqual({ status: 'incomplete' })
  const nars = await fetchNars(honest, host.peerId, [{ narHash, narSize: image.narSize ?? 0 }])
  if (nars.status !== 'ok') throw new Error(nars.status)
  for await (const nar of nars.nars) for await (const bytes of nar ?? (async function* () { /* nothing */ })()) received += bytes.length
  expect(received).toBe(MIB + (image.narSize ?? 0))
  expect(await chunkFrom(told.metadata.manifestDigest ?? '')).toBeGreaterThan(16 * 1024)
  await honest.stop()
  return told.metadata.manifestDigest ?? ''
}

/** Bytes that come of one chunk that is asked for by a member of its own. */
async function chunkFrom(digest: string): Promise<number> {
  const peer = await HostilePeer.join(host, fleet)
  const stream = await peer.open(CHUNKS_PROTOCOL)
  let received = 0
  stream.addEventListener('message', ({ data }) => { received += data.byteLength })
  stream.send(encodeHeader({ version: 1, narHash: image.narHash, manifestDigest: digest }))
  stream.send(Uint8Array.from(encodeAsker({ kind: 'want', id: 1, runs: [{ first: 0, count: 1 }], choice: undefined })))
  await until(() => Promise.resolve(received > 16 * 1024 || stream.status !== 'open'), 'a chunk')
  await peer.vanish()
  return received
}

/** One step of an exchange: what the peer has said by then, whether that was all, and the bytes that have come back. */
interface Step {
  readonly when: string
  readonly protocol: string
  readonly said: readonly Uint8Array[]
  readonly isEnded?: boolean
  readonly heard?: number
}

/** Every step of one exchange: nothing, half a request, a request that does not end, one that does, and some of the answer. */
function stepsOf(what: string, protocol: string, request: Uint8Array, answers: readonly number[]): Step[] {
  return [
    { when: `${what}: nothing said`, protocol, said: [] },
    { when: `${what}: half a request`, protocol, said: [request.subarray(0, request.length / 2)] },
    { when: `${what}: a request that does not end`, protocol, said: [request] },
    { when: `${what}: a request`, protocol, said: [request], isEnded: true },
    ...answers.map(heard => ({ when: `${what}: after ${heard} bytes of the answer`, protocol, said: [request], isEnded: true, heard })),
  ]
}

function exchanges(): Record<string, Step[]> {
  const { narHash } = image
  const hello = encodeHeader({ version: 1, narHash, manifestDigest })
  const want = encodeAsker({ kind: 'want', id: 1, runs: [{ first: 0, count: 50 }], choice: undefined })
  const findNode = Buffer.concat([Uint8Array.of(36, 0x08, 4, 0x12, 32), NarHash.parse(narHash).bytes])
  return {
    meta: stepsOf('meta', META_PROTOCOL, encodeHeader({ version: 1, narHash }), [1, 200]),
    nar: stepsOf('nar', NAR_PROTOCOL, encodeHeader({ version: 1, narHash, offset: 0, length: image.narSize }), [1, 100_000]),
    closure: [
      ...stepsOf('paths', CLOSURE_PROTOCOL, encodeHeader({ version: 1, want: 'paths', narHash }), [1]),
      ...stepsOf('NARs', CLOSURE_PROTOCOL, encodeHeader({ version: 1, want: 'nars', narHashes: [narHash] }), [1, 100_000]),
    ],
    chunks: [
      ...[[], [hello.subarray(0, 9)], [hello], [hello, want.subarray(0, 3)], [hello, want]].map((said, index): Step => ({ when: `chunks: step ${index}`, protocol: CHUNKS_PROTOCOL, said })),
      ...[1, 100, 100_000].map((heard): Step => ({ when: `chunks: after ${heard} bytes`, protocol: CHUNKS_PROTOCOL, said: [hello, want], heard })),
    ],
    dht: stepsOf('dht', KAD_PROTOCOL, findNode, [1]),
  }
}

/** Takes a stream to a step. */
async function goTo({ protocol, said, isEnded = false, heard = 0 }: Step, peer: HostilePeer): Promise<Stream> {
  const stream = await peer.open(protocol)
  let received = 0
  const reached = new Promise<void>(resolve => {
    stream.addEventListener('message', ({ data }) => {
      received += data.byteLength
      if (received < heard) return
      if (stream.readStatus === 'readable') stream.pause()
      resolve()
    })
    stream.addEventListener('close', () => { resolve() })
  })
  for (const bytes of said) stream.send(Uint8Array.from(bytes))
  if (isEnded) await stream.close()
  if (heard > 0) await reached
  return stream
}

describe('who is gone in the middle of', () => {
  // Watches that what an exchange holds is given back however it ends: the places of each protocol (nar/handler.ts, meta/handler.ts, closure/handler.ts), the
  // sessions and turns of the swarm (served-session.ts), the exchanges of a peer and of all (node.ts), and the bytes in flight (in-flight.ts).
  it.each(['meta', 'nar', 'closure', 'chunks', 'dht'])('%s, at whatever step, leaves no place taken, no file open and the log as it was', async what => {
    await lookBefore()
    const steps = exchanges()[what] ?? []
    let peer = await HostilePeer.join(host, fleet)
    for (let round = 0; round < ROUNDS; round++) {
      const streams = await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => goTo(steps[(round * AT_ONCE + index) % steps.length] ?? steps[0] as Step, peer)))
      if (round % LIVES === LIVES - 1) {
        // By now it has had more exchanges than one peer may have at once.
        const answered = exchanges()['nar']?.find(({ heard = 0 }) => heard > 0)
        expect(answered && (await goTo(answered, peer)).status, `round ${round}`).toBe('open')
        await peer.vanish()
        peer = await HostilePeer.join(host, fleet)
      } else {
        for (const stream of streams) stream.abort(new Error('gone'))
        await Promise.all(streams.map(stream => untilEnded(stream)))
      }
    }
    await serveEverything()
    await peer.vanish()
    await until(async () => (await host.client.status()).peers === 0, 'the last peer to be gone')
    await until(async () => await openFiles(host.pid) <= filesBefore + 2, 'the files and sockets to be closed')
    expect((await host.memory()).rss - memoryBefore).toBeLessThan(100)
    expect(host.log.split('\n').length - linesBefore).toBeLessThan(10)
  })

  // Watches that a handshake that breaks off gives its place back (half-open.ts), and that no step of one ends the daemon (tls/socket.ts, fleet-noise.ts).
  it('a handshake, after whatever number of bytes in either direction, keeps nobody out', async () => {
    await lookBefore()
    const cuts = Array.from({ length: 3 * MAX_HALF_OPEN_PER_ADDRESS }, (_, index) => ({ up: index % 2 === 0 ? 1 + index * 12 : Infinity, down: index % 2 === 0 ? Infinity : 1 + index * 12 }))
    for (let start = 0; start < cuts.length; start += AT_ONCE) {
      await Promise.all(cuts.slice(start, start + AT_ONCE).map(async cut => {
        const peer = await HostilePeer.alone(fleet)
        const address = await throughCut(host, cut)
        await peer.stack.dial(multiaddr(address)).then(() => untilDisconnected(peer), () => undefined)
        await peer.vanish()
      }))
    }
    await serveEverything()
    await until(async () => await openFiles(host.pid) <= filesBefore + 2, 'the sockets to be closed')
    expect((await host.memory()).rss - memoryBefore).toBeLessThan(100)
    expect(host.log.split('\n').length - linesBefore).toBeLessThan(10)
  })
})

describe('those that a host dials', () => {
  // Watches the time and the end of a handshake on the dialling side (tls/socket.ts, fleet-noise.ts, mesh.ts): whoever breaks off is dialled again later, in silence.
  it('who break off after whatever number of bytes, keep it from nobody else', async () => {
    const liar = await HostilePeer.alone(fleet)
    const cuts = Array.from({ length: 24 }, (_, index) => index % 2 === 0 ? { up: 1 + index * 40, down: Infinity } : { up: Infinity, down: 1 + index * 40 })
    const addresses = await Promise.all(cuts.map(cut => throughCut(liar, cut)))
    const dialler = await TestDaemon.start({ env: { NARVIK_FLEET_KEY_FILE: keyFile, NARVIK_LOG_LEVEL: 'info' }, bootstrap: [{ addresses }, host] })
    await until(async () => (await dialler.client.peers()).some(({ peerId }) => peerId === host.peerId), 'the honest peer')
    expect(dialler.log.split('\n').length).toBeLessThan(40)
    expect((await dialler.client.status()).peerId).toBe(dialler.peerId)
  })
})

async function untilDisconnected(peer: HostilePeer): Promise<void> {
  if (peer.stack.getConnections().length > 0) await new Promise(resolve => { peer.stack.addEventListener('peer:disconnect', resolve, { once: true }) })
}

/** An address at which the host is reached until so many bytes have gone in a direction; then both ends find the line dead. */
async function throughCut({ addresses }: Pick<TestDaemon, 'addresses'>, { up, down }: { readonly up: number, readonly down: number }): Promise<string> {
  const [address = ''] = addresses
  const [, , hostName = '', , port = '', , peerId = ''] = address.split('/')
  const proxy = createServer(near => {
    const far = connect(Number(port), hostName)
    const cut = (): void => { near.resetAndDestroy(); far.resetAndDestroy() }
    for (const [from, to, most] of [[near, far, up], [far, near, down]] as const) {
      let passed = 0
      from.on('error', cut).on('close', cut).on('data', (bytes: Buffer) => {
        to.write(bytes.subarray(0, Math.max(0, most - passed)))
        passed += bytes.length
        if (passed >= most) setImmediate(cut)
      })
    }
  })
  onTestFinished(() => { proxy.close() })
  await new Promise<void>(resolve => { proxy.listen(0, '127.0.0.1', resolve) })
  const bound = proxy.address()
  if (bound === null || typeof bound === 'string') throw new Error('no address')
  return `/ip4/127.0.0.1/tcp/${bound.port}/p2p/${peerId}`
}
