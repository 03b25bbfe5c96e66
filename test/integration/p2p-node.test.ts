import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { fleetKeys, NO_FLEET } from '../../src/p2p/fleet.ts'
import { fleetNoise, openNoise } from '../../src/p2p/fleet-noise.ts'
import { newIdentity, peerIdOf } from '../../src/p2p/identity.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { createNode, type NodeInit, type P2pNode } from '../../src/p2p/node.ts'
import { NameBook } from '../../src/p2p/names.ts'
import { RecordBook } from '../../src/p2p/record-book.ts'
import { createStack, muxer, privateKeyOf, type Stack, type StackInit } from '../../src/p2p/stack.ts'
import { MadeUpSource, rangeOf } from '../helpers/bytes.ts'
import { expectFailure, failureOf } from '../helpers/failure.ts'
import { allConnected, HASH, LOOPBACK, PATIENCE_MS, startFleet, startNode } from '../helpers/nodes.ts'

const FIXTURE = fileURLToPath(new URL('../fixtures/p2p-node.ts', import.meta.url))
const GIB = 1024 ** 3

async function pair(init: Partial<NodeInit> = {}): Promise<[P2pNode, P2pNode]> {
  const [a, b] = await startFleet(2, init)
  if (a === undefined || b === undefined) throw new Error('too few')
  return [a, b]
}

async function startProcess(init: NodeInit, size: number): Promise<{ child: ChildProcess, addresses: string[] }> {
  const child = spawn(process.execPath, [FIXTURE, JSON.stringify(init), String(size), HASH.toSri()], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => { child.kill('SIGKILL') })
  const [line] = await once(child.stdout, 'data') as [Buffer]
  return { child, addresses: JSON.parse(line.toString()) as string[] }
}

function streamsOf(...nodes: P2pNode[]): number {
  return nodes.flatMap(node => node.peers()).reduce((sum, { streams }) => sum + streams, 0)
}

const signal = (): AbortSignal => AbortSignal.timeout(PATIENCE_MS)

describe('two hosts', () => {
  it('move metadata and a range, keep the books, and leave no stream behind', async () => {
    const [a, b] = await pair()
    expect(await fetchMetadata(b, a.peerId, HASH)).toMatchObject({ status: 'ok', metadata: { narSize: 1_000_000 } })
    const answer = await fetchNar(b, a.peerId, HASH, 1000, 500_000)
    if (answer.status !== 'ok') throw new Error(answer.status)
    const parts: Uint8Array[] = []
    for await (const part of answer.body) parts.push(part)
    expect(Buffer.compare(Buffer.concat(parts), rangeOf(1000, 500_000))).toBe(0)
    await vi.waitFor(() => { expect(streamsOf(a, b)).toBe(0) })
    expect(b.trafficOf(a.peerId).received).toBeGreaterThan(500_000)
    expect(a.trafficOf(b.peerId).sent).toBe(b.trafficOf(a.peerId).received)
  })

  it('say who they are', async () => {
    const identity = await newIdentity()
    const a = await startNode({ identity, agent: 'narvik/1.2.3' })
    const b = await startNode({ bootstrap: a.addresses })
    await b.waitForPeer(a.peerId, { signal: signal() })
    expect(a.peerId).toBe(peerIdOf(identity))
    expect(b.peers()).toMatchObject([{ peerId: a.peerId, agent: 'narvik/1.2.3', direction: 'outbound', banned: false, addresses: a.addresses }])
  })

  it('serve several ranges at once on one connection', async () => {
    const [a, b] = await pair()
    await Promise.all(Array.from({ length: 8 }, async (_, index) => {
      const answer = await fetchNar(b, a.peerId, HASH, index * 50_000, 50_000)
      if (answer.status !== 'ok') throw new Error(answer.status)
      const parts: Uint8Array[] = []
      for await (const part of answer.body) parts.push(part)
      expect(Buffer.compare(Buffer.concat(parts), rangeOf(index * 50_000, 50_000))).toBe(0)
    }))
    await vi.waitFor(() => { expect(streamsOf(a, b)).toBe(0) })
  })

  it('answer busy rather than open too many streams', async () => {
    const source = new MadeUpSource(HASH, GIB)
    const a = await startNode({}, { source })
    const b = await startNode({ bootstrap: a.addresses })
    await allConnected([a, b])
    const answers = await Promise.all(Array.from({ length: 20 }, () => fetchNar(b, a.peerId, HASH, 0, GIB)))
    expect(answers.filter(({ status }) => status === 'ok')).toHaveLength(8)
    expect(answers.filter(({ status }) => status === 'busy')).toHaveLength(12)
  })
})

describe('a connection', () => {
  it.each([['in a fleet', fleetKeys(rangeOf(3, 32)), '/narvik/noise/1.0.0'], ['in no fleet', NO_FLEET, '/noise']])('is encrypted by TLS, or by Noise with a host that speaks no other, %s', async (_what, fleet, noiseName) => {
    const init = async (): Promise<StackInit> => ({ privateKey: privateKeyOf(await newIdentity()), listen: [LOOPBACK], mdns: false, fleet, agent: 'test' })
    const make = async (): Promise<Stack> => createStack({ gater: {}, names: new NameBook(), book: new RecordBook({}), logger: silentLogger }, await init())
    const [one, other] = [await make(), await make()]
    const old = await createLibp2p({
      addresses: { listen: [LOOPBACK] }, transports: [tcp()], streamMuxers: [muxer],
      connectionEncrypters: [fleet.dial === undefined ? openNoise() : fleetNoise(fleet)],
    })
    for (const stack of [one, other, old]) {
      await stack.start()
      onTestFinished(() => stack.stop())
    }
    expect((await one.dial(other.getMultiaddrs())).encryption).toBe('/narvik/tls/1.0.0')
    expect((await one.dial(old.getMultiaddrs())).encryption).toBe(noiseName)
    expect((await old.dial(other.getMultiaddrs())).encryption).toBe(noiseName)
  })
})

describe('a host that goes', () => {
  it('killed in the middle of a body: it ends cleanly for the stream, and gives peer-failed', async () => {
    const { child, addresses } = await startProcess({ listen: [LOOPBACK] }, GIB)
    const node = await startNode({ bootstrap: addresses })
    const peerId = addresses[0]?.split('/').at(-1) ?? ''
    await node.waitForPeer(peerId, { signal: signal() })
    const answer = await fetchNar(node, peerId, HASH, 0, GIB)
    if (answer.status !== 'ok') throw new Error(answer.status)
    const { body } = answer
    await expectFailure((async () => {
      let received = 0
      for await (const bytes of body) {
        received += bytes.byteLength
        if (received > 3_000_000) child.kill('SIGKILL')
      }
    })(), 'peer-failed', /found its end after \d+ bytes, needed 1073741824/)
    await vi.waitFor(() => { expect(node.peers()).toEqual([]) })
  })

  it('frozen in the middle of a body: the watchdog ends it', async () => {
    const { child, addresses } = await startProcess({ listen: [LOOPBACK] }, GIB)
    const node = await startNode({ bootstrap: addresses })
    const peerId = addresses[0]?.split('/').at(-1) ?? ''
    await node.waitForPeer(peerId, { signal: signal() })
    const answer = await fetchNar(node, peerId, HASH, 0, GIB, { stallMs: 200 })
    if (answer.status !== 'ok') throw new Error(answer.status)
    const { body } = answer
    await expectFailure((async () => {
      for await (const bytes of body) if (bytes.byteLength > 0) child.kill('SIGSTOP')
    })(), 'peer-failed', /found no byte of the body for 200 ms/)
    expect(streamsOf(node)).toBe(0)
  })

  it('frozen while nothing is asked of it: its connections end, and it comes back when it wakes', async () => {
    const { child, addresses } = await startProcess({ listen: [LOOPBACK] }, 0)
    const node = await startNode({ bootstrap: addresses, probeIntervalMs: 100, probeTimeoutMs: 100 })
    const peerId = addresses[0]?.split('/').at(-1) ?? ''
    await node.waitForPeer(peerId, { signal: signal() })
    child.kill('SIGSTOP')
    await vi.waitFor(() => { expect(node.peers()).toEqual([]) }, { timeout: PATIENCE_MS })
    child.kill('SIGCONT')
    await node.waitForPeer(peerId, { signal: signal() })
  })

  it('stopped: its own transfers are interrupted, those of others have a failed peer', async () => {
    const source = new MadeUpSource(HASH, GIB)
    const a = await startNode({}, { source })
    const b = await startNode({ bootstrap: a.addresses }, { source })
    await allConnected([a, b])
    const [fromA, fromB] = await Promise.all([fetchNar(b, a.peerId, HASH, 0, GIB), fetchNar(a, b.peerId, HASH, 0, GIB)])
    if (fromA.status !== 'ok' || fromB.status !== 'ok') throw new Error('refused')
    let stopped: Promise<void> | undefined
    const drain = async (body: AsyncIterable<Uint8Array>): Promise<void> => {
      for await (const bytes of body) if (bytes.byteLength > 0) stopped ??= a.stop()
    }
    const [ofB, ofA] = await Promise.all([failureOf(drain(fromA.body)), failureOf(drain(fromB.body))])
    expect(ofA).toMatchObject({ code: 'interrupted' })
    expect(ofB).toMatchObject({ code: 'peer-failed' })
    await stopped
    await vi.waitFor(() => { expect(source.reading).toBe(0) })
    await expectFailure(fetchMetadata(a, b.peerId, HASH), 'interrupted', /stopping/)
  })

  it('lets its process end by itself after a stop, in the middle of what it serves', async () => {
    const { child, addresses } = await startProcess({ listen: [LOOPBACK] }, GIB)
    const node = await startNode({ bootstrap: addresses })
    const peerId = addresses[0]?.split('/').at(-1) ?? ''
    await node.waitForPeer(peerId, { signal: signal() })
    const answer = await fetchNar(node, peerId, HASH, 0, GIB)
    if (answer.status !== 'ok') throw new Error(answer.status)
    await answer.body[Symbol.asyncIterator]().next()
    child.stdin?.end()
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  it('is dialled again when it comes back, and before it ever came', async () => {
    const identity = await newIdentity()
    const port = await freePort()
    const listen = [`/ip4/127.0.0.1/tcp/${port}`]
    const b = await startNode({ bootstrap: [`${listen[0] ?? ''}/p2p/${peerIdOf(identity)}`] })
    const c = await startNode({ bootstrap: listen })
    for (let round = 0; round < 2; round++) {
      const a = await startNode({ identity, listen })
      await Promise.all([b, c].map(node => node.waitForPeer(a.peerId, { signal: signal() })))
      await a.stop()
      await vi.waitFor(() => { expect([b, c].flatMap(node => node.peers()).filter(({ peerId }) => peerId === a.peerId)).toEqual([]) })
    }
  })
})

describe('a stranger', () => {
  const key = rangeOf(7, 32)

  it.each([['without a fleet key', undefined], ['with another fleet key', rangeOf(8, 32)]])('%s gets past no handshake, whoever dials', async (_what, strangerKey) => {
    const a = await startNode({ fleet: fleetKeys(key) })
    const b = await startNode({ fleet: fleetKeys(key), bootstrap: a.addresses })
    const stranger = await startNode({ fleet: strangerKey && fleetKeys(strangerKey), bootstrap: [...a.addresses, ...b.addresses] })
    const dialler = await startNode({ fleet: fleetKeys(key), bootstrap: [...a.addresses, ...stranger.addresses] })
    await allConnected([a, b, dialler])
    await expectFailure(fetchMetadata(stranger, a.peerId, HASH), 'peer-failed', /Cannot reach peer/)
    await expectFailure(fetchMetadata(dialler, stranger.peerId, HASH), 'peer-failed', /Cannot reach peer/)
    expect(stranger.peers()).toEqual([])
    for (const node of [a, b, dialler]) expect(node.peers().map(({ peerId }) => peerId)).not.toContain(stranger.peerId)
  })

  it.each(['/ip4/0.0.0.0/tcp/0', '/ip4/10.0.0.1/tcp/0', '/ip6/::/tcp/0', '/dns4/localhost/tcp/0'])('is not let in through %s by default', async address => {
    const warnings: string[] = []
    const logger = { ...silentLogger, warn: (line: string) => { warnings.push(line) } }
    const components = { logger, source: new MadeUpSource(HASH, 0) }
    await expectFailure(createNode(components, { listen: [LOOPBACK, address] }), 'refused', /needed one for an address beyond loopback/)
    await createNode(components, { listen: [LOOPBACK], allowOpen: true })
    await createNode(components, { listen: [address], allowOpen: true, fleet: fleetKeys(key) })
    expect(warnings).toEqual([])
    await createNode(components, { listen: [address], allowOpen: true })
    expect(warnings).toEqual([expect.stringContaining('whoever reaches its port can fetch')])
  })

  it('with another fleet key is told of by a host that was to dial it', async () => {
    const a = await startNode({ fleet: fleetKeys(key) })
    const reasons: unknown[] = []
    const logger = { ...silentLogger, warn: (_line: string, fields?: Readonly<Record<string, unknown>>) => { reasons.push(fields?.['reason']) } }
    await startNode({ fleet: fleetKeys(rangeOf(8, 32)), bootstrap: a.addresses }, { logger })
    await vi.waitFor(() => { expect(reasons).toEqual([expect.stringMatching(/fleet keys differ/)]) })
  })

  it('is what a malformed key or address makes of nobody', async () => {
    const components = { logger: silentLogger, source: new MadeUpSource(HASH, 0) }
    expect(() => fleetKeys(new Uint8Array(31))).toThrow(/31 bytes, needed 32/)
    await expectFailure(createNode(components, { listen: ['127.0.0.1:80'] }), 'invalid-config', /Cannot listen on 127\.0\.0\.1:80/)
    await expectFailure(createNode(components, { listen: ['/ip4/127.0.0.1/udp/80'] }), 'invalid-config', /no TCP address/)
    await expectFailure(createNode(components, { listen: [], bootstrap: ['example.org'] }), 'invalid-config', /bootstrap peer example\.org/)
  })
})

describe('a node', () => {
  it('says which address is taken, in one line', async () => {
    const a = await startNode()
    const listen = a.addresses.map(address => address.replace(/\/p2p\/.*/, ''))
    const b = await createNode({ logger: silentLogger, source: new MadeUpSource(HASH, 0) }, { listen })
    await expectFailure(b.start(), 'in-use', /^NarvikError: Cannot listen on \/ip4\/127\.0\.0\.1\/tcp\/\d+: found listen EADDRINUSE: [^\n]*$/)
  })
})

describe('a banned peer', () => {
  it('is gone, is neither dialled, let in nor found, and may come back afterwards', async () => {
    let now = Date.now()
    const a = await startNode({}, { now: () => now })
    const [b, c] = await Promise.all([startNode({ bootstrap: a.addresses }), startNode({ bootstrap: a.addresses })])
    await allConnected([a, b, c])
    await vi.waitFor(() => { expect(b.routingPeers).toBe(2) })
    await b.router.announce({ narHash: HASH, narSize: 1, manifestDigest: null })
    a.ban(b.peerId, 60_000, 'it lies')
    await vi.waitFor(() => { expect(a.peers().find(({ peerId }) => peerId === b.peerId)).toMatchObject({ banned: true, direction: null }) })
    await expectFailure(fetchMetadata(a, b.peerId, HASH), 'peer-failed', /Cannot reach peer/)
    await failureOf(fetchMetadata(b, a.peerId, HASH))
    for await (const { peerId } of a.router.find(HASH)) throw new Error(`found ${peerId}`)
    now += 60_001
    await a.waitForPeer(b.peerId, { signal: signal() })
    expect(a.peers().find(({ peerId }) => peerId === b.peerId)).toMatchObject({ banned: false })
  })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
