/**
 * Members of the fleet that mean harm to its DHT, against one real daemon. How records are proven is in test/unit/p2p, a name that moves and is
 * brought back in names.test.ts; a host's own words that are too many in peer-limits.test.ts.
 */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { Record as DhtRecord } from '@libp2p/kad-dht'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import type { NarHash } from '../../src/image/nar-hash.ts'
import { DIAL_TIMEOUT_MS, FIND_TIMEOUT_MS, MAX_PEER_ADDRESSES, MAX_RECORD_BYTES } from '../../src/limits.ts'
import { nameKey, publisherId } from '../../src/image/name-record.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { recordKey, signRecord } from '../../src/p2p/record.ts'
import { runCli, temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { type DhtPeer, HostilePeer, providerKey } from '../helpers/hostile.ts'
import { someHash } from '../helpers/images.ts'
import { makePublisher } from '../helpers/names.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const WAIT_SECONDS = 2
const publisher = makePublisher()
let host: TestDaemon
let honest: TestDaemon
let fleet: FleetKeys
let env: Record<string, string>
let dir: string

beforeAll(async () => {
  dir = await temporaryDirectory()
  fleet = fleetKeys(await createFleetKey(join(dir, 'fleet.key')))
  env = { NARVIK_FLEET_KEY_FILE: join(dir, 'fleet.key'), NARVIK_LOG_LEVEL: 'info', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: String(WAIT_SECONDS), NARVIK_TRUST_KEYS: publisher.publicKey }
  host = await TestDaemon.start({ env })
  honest = await TestDaemon.start({ env, bootstrap: [host] })
  await host.untilPeers(1)
})

// Whatever was done to it, the daemon has not been made to fill its log.
afterEach(() => { expect(host.log.split('\n').length).toBeLessThan(60) })

async function importDisk(seed: number, by = honest): Promise<ImageJson> {
  const file = join(dir, `disk-${seed}`)
  await makeRawDisk(file, 200_000, seed)
  return by.json<ImageJson>('import', file)
}

async function inventedProviders(count: number, port = 9): Promise<DhtPeer[]> {
  const ids = await Promise.all(Array.from({ length: count }, async () => peerIdFromPrivateKey(await generateKeyPair('Ed25519'))))
  return ids.map(id => ({ id: id.toMultihash().bytes, multiaddrs: [multiaddr(`/ip4/127.0.0.1/tcp/${port}`).bytes] }))
}

/** A port that takes connections and never says a word: whoever dials it waits for as long as it waits for anybody. */
async function silentPort(): Promise<{ readonly port: number, readonly dialled: () => number }> {
  let dialled = 0
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    dialled++
    sockets.add(socket)
    socket.on('error', () => undefined).resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, dialled: () => dialled }
}

function put(peer: HostilePeer, key: Uint8Array, value: Uint8Array): ReturnType<HostilePeer['ask']> {
  return peer.ask({ type: 'PUT_VALUE', key, record: new DhtRecord(key, value, new Date()).serialize() })
}

/** A loaded machine may be late with an answer, and is asked again. */
async function untilStored(peer: HostilePeer, key: Uint8Array, value: Uint8Array): Promise<void> {
  await until(async () => await put(peer, key, value) !== undefined, 'the record to be taken')
}

async function stored(peer: HostilePeer, key: Uint8Array): Promise<string | undefined> {
  const value = (await peer.ask({ type: 'GET_VALUE', key }))?.record?.value
  return value === undefined || value.length === 0 ? undefined : Buffer.from(value).toString('hex')
}

describe('a member of the DHT that', () => {
  // Watches that a look-up ends in known time and memory however many are made up (router-dht.ts), where the honest one is known to the host itself.
  it('makes up a thousand providers does not hide the one that there is', async () => {
    const image = await importDisk(1)
    const invented = await inventedProviders(1000)
    const liar = await HostilePeer.join(host, fleet)
    liar.answerDht(message => ({ ...message, providers: message.type === 'GET_PROVIDERS' ? invented : [], closer: [] }))
    await host.untilPeers(2)
    const { rss: before } = await host.memory()
    expect(await host.json<ImageJson>('fetch', image.narHash)).toMatchObject({ state: 'verified' })
    expect((await host.memory()).rss - before).toBeLessThan(100)
  })

  // Watches that the fleet is asked again while made-up providers are tried, each of which takes as long as a dial may (providers.ts).
  it('makes up a thousand providers that never answer does not hide one that comes later', async () => {
    const { port, dialled } = await silentPort()
    const invented = await inventedProviders(1000, port)
    const liar = await HostilePeer.alone(fleet)
    let asked = 0
    liar.answerDht(message => {
      if (message.type === 'GET_PROVIDERS') asked++
      return { ...message, providers: message.type === 'GET_PROVIDERS' ? invented : [], closer: [] }
    })
    const fetching = await TestDaemon.start({ env: { ...env, NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '40' }, bootstrap: [host, liar] })
    await fetching.untilPeers(3)
    const { rss: before } = await fetching.memory()
    const file = join(dir, 'late')
    await makeRawDisk(file, 200_000, 77)
    const { narHash } = JSON.parse((await runCli(['hash', file, '--json'])).stdout) as ImageJson
    const start = performance.now()
    const fetch = fetching.json<ImageJson>('fetch', narHash)
    await until(async () => Promise.resolve(asked > 0 && dialled() > 0), 'made-up providers to be tried')
    await honest.json<ImageJson>('import', file)
    expect(await fetch).toMatchObject({ state: 'verified' })
    expect(performance.now() - start).toBeLessThan(DIAL_TIMEOUT_MS + 2 * FIND_TIMEOUT_MS)
    expect((await fetching.memory()).rss - before).toBeLessThan(120)
    expect(fetching.log.split('\n').length).toBeLessThan(60)
  }, 120_000)

  // Watches the time for one message of the DHT (stack.ts), and that a look-up goes on without who is gone.
  it.each(['FIND_NODE', 'GET_PROVIDERS', 'GET_VALUE'] as const)('is gone when it is asked %s hides nothing', async type => {
    const image = await importDisk(['FIND_NODE', 'GET_PROVIDERS', 'GET_VALUE'].indexOf(type) + 10)
    const gone = await HostilePeer.join(host, fleet)
    gone.answerDht(async message => {
      if (message.type === type) await gone.vanish()
      return { ...message, providers: [], closer: [] }
    })
    expect(await host.json<ImageJson>('fetch', image.narHash)).toMatchObject({ state: 'verified' })
  })

  // Watches the signature, the key and the number of records (record.ts, names.ts, record-book.ts), where the host stores them for others.
  it('forges or replays records has none of them stored', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const now = Date.now()
    const narHash = someHash('of a record')
    const record = { version: 1 as const, status: 'held' as const, narHash, narSize: 1, manifestDigest: null, seq: now - 1000, expires: now + 60_000 }
    const own = recordKey(peer.peerId, narHash)
    const others = recordKey(honest.peerId, narHash)
    const [first, second] = [await signRecord(own, record, peer.privateKey), await signRecord(own, { ...record, seq: now }, peer.privateKey)]

    await untilStored(peer, own, first)
    await untilStored(peer, own, second)
    const refused: [what: string, key: Uint8Array, value: Uint8Array][] = [
      ['an older one', own, first],
      ['in the name of another', others, await signRecord(others, record, peer.privateKey)],
      ['of another key', others, second],
      ['from the future', own, await signRecord(own, { ...record, seq: now + 3_600_000 }, peer.privateKey)],
      ['too large', own, Buffer.alloc(MAX_RECORD_BYTES + 1)],
      ['of no kind', Buffer.from('/pk/x'), Buffer.alloc(10)],
    ]
    for (const [what, key, value] of refused) expect(await put(peer, key, value), what).toBeUndefined()
    expect(await stored(peer, own)).toBe(Buffer.from(second).toString('hex'))
    expect(await stored(peer, others)).toBeUndefined()

    const name = nameKey(publisherId(publisher.publicKey), 'web')
    const [older, newer] = [publisher.sign('web', narHash, { seq: 1 }), publisher.sign('web', narHash, { seq: 2 })]
    await untilStored(peer, name, newer)
    for (const value of [older, makePublisher().sign('web', narHash), publisher.sign('web', narHash, { seq: 9, publishedAt: 0, expires: 1 })]) expect(await put(peer, name, value)).toBeUndefined()
    expect(await stored(peer, name)).toBe(Buffer.from(newer).toString('hex'))
  })

  // Watches the addresses that are remembered of a peer (dht-inside.ts).
  it('announces itself at thousands of addresses is remembered at few', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const narHash: NarHash = someHash('of an address')
    for (let round = 0; round < 20; round++) {
      const addresses = Array.from({ length: 100 }, (_, index) => `/ip4/127.1.${round}.${index}/tcp/9`)
      await peer.ask({ type: 'ADD_PROVIDER', key: providerKey(narHash), providers: [peer.asProvider(addresses)] })
    }
    const told = await peer.ask({ type: 'GET_PROVIDERS', key: providerKey(narHash) })
    expect(told?.providers).toHaveLength(1)
    expect(told?.providers?.[0]?.multiaddrs.length).toBeLessThanOrEqual(MAX_PEER_ADDRESSES)
  })

  // Watches that a provider record is only taken from the provider itself (kad-dht's add-provider).
  it('announces others is not believed', async () => {
    const peer = await HostilePeer.join(host, fleet)
    const key = providerKey(someHash('of others'))
    await peer.ask({ type: 'ADD_PROVIDER', key, providers: await inventedProviders(100) })
    expect((await peer.ask({ type: 'GET_PROVIDERS', key }))?.providers).toEqual([])
  })
})

describe('a bootstrap peer that is the only one a host knows', () => {
  // Watches the time for those that are tried late (providers.ts), that for a look-up, and that who stands between is asked no more once another host is known.
  it.each([
    { what: 'refuse', disk: 2, seconds: 2 * FIND_TIMEOUT_MS / 1000 + WAIT_SECONDS },
    { what: 'never answer', disk: 3, seconds: (FIND_TIMEOUT_MS + 3 * DIAL_TIMEOUT_MS) / 1000 + WAIT_SECONDS },
  ])('and makes up providers that $what keeps it from its image in known time and memory, and no longer than until another one comes', async ({ what, disk, seconds }) => {
    const holder = await TestDaemon.start({ env })
    const image = await importDisk(disk, holder)
    const invented = await inventedProviders(1000, what === 'refuse' ? undefined : (await silentPort()).port)
    const eclipse = await HostilePeer.alone(fleet)
    eclipse.answerDht(message => ({ ...message, providers: message.type === 'GET_PROVIDERS' ? invented : [], closer: invented.slice(0, 100) }))
    const victim = await TestDaemon.start({
      env: { NARVIK_FLEET_KEY_FILE: join(dir, 'fleet.key'), NARVIK_LOG_LEVEL: 'info', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: String(WAIT_SECONDS) }, bootstrap: [eclipse],
    })
    await victim.untilPeers(1)
    const { rss: before } = await victim.memory()
    const start = performance.now()
    const { exitCode, stdout } = await victim.run('fetch', image.narHash, '--timeout', '120', '--json')
    expect([exitCode, stdout]).toEqual([4, expect.stringContaining('no-provider')])
    expect((performance.now() - start) / 1000).toBeLessThan(seconds)
    expect((await victim.memory()).rss - before).toBeLessThan(120)
    expect(victim.log.split('\n').length).toBeLessThan(60)

    await holder.stop()
    await TestDaemon.start({ dir: holder.dir, env, bootstrap: [victim] })
    await victim.untilPeers(2)
    await until(async () => (await victim.run('fetch', image.narHash)).exitCode === 0, 'the image from the honest host')
  }, 120_000)
})
