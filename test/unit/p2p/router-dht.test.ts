import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { CLOCK_SKEW_MS, MAX_NAMED_ADDRESSES, MAX_NAMED_PROVIDERS, RECORD_LIFETIME_MS } from '../../../src/limits.ts'
import { silentLogger } from '../../../src/log.ts'
import { verifyRecord } from '../../../src/p2p/record.ts'
import { RecordBook } from '../../../src/p2p/record-book.ts'
import { DhtRouter, type DhtRouterComponents } from '../../../src/p2p/router-dht.ts'
import type { Provider } from '../../../src/p2p/router.ts'
import { someHash } from '../../helpers/images.ts'

const HASH = someHash('of an image')
const DAY = 24 * 3600 * 1000
const privateKey = await generateKeyPair('Ed25519')
const ids = await Promise.all(Array.from({ length: 400 }, async () => peerIdFromPrivateKey(await generateKeyPair('Ed25519'))))

interface Named {
  readonly from: PeerId
  readonly providers: readonly { readonly id: PeerId, readonly multiaddrs: readonly Multiaddr[] }[]
}

function named(from: PeerId, providers: readonly PeerId[], addresses = 1): Named {
  return { from, providers: providers.map(id => ({ id, multiaddrs: Array.from({ length: addresses }, (_, index) => multiaddr(`/ip4/127.0.0.1/tcp/${index + 1}`)) })) }
}

/** A router over a DHT in which peers name providers, and nobody has a record; `ends`: whether those who are asked ever answer. */
function routerOf({ words = [] as readonly Named[], connected = [] as readonly PeerId[], ends = true, now = Date.now }) {
  const lookedUp: string[] = []
  const put: { key: Uint8Array, value: Uint8Array }[] = []
  const provided: unknown[] = []
  const until = (signal: AbortSignal): Promise<void> => new Promise((_, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error) }) })
  const dht = {
    k: 20,
    async *findProviders(_cid: unknown, { signal }: { signal: AbortSignal }) {
      for (const { from, providers } of words) {
        await Promise.resolve()
        yield { name: 'PROVIDER', from, providers }
      }
      if (!ends) await until(signal)
    },
    // eslint-disable-next-line require-yield -- nobody has one
    async *get(recordKey: Uint8Array, { signal }: { signal: AbortSignal }) {
      lookedUp.push(Buffer.from(recordKey).toString('latin1'))
      await (ends ? Promise.resolve() : until(signal))
    },
    // eslint-disable-next-line require-yield -- nobody is told
    async *put(recordKey: Uint8Array, value: Uint8Array) { await Promise.resolve(); put.push({ key: recordKey, value }) },
    // eslint-disable-next-line require-yield -- nobody is told
    async *provide(cid: unknown) { await Promise.resolve(); provided.push(cid) },
  }
  const router = new DhtRouter({
    dht: dht as unknown as DhtRouterComponents['dht'], routingTable: { size: 1, addEventListener: () => undefined }, peerId: peerIdFromPrivateKey(privateKey), privateKey,
    book: new RecordBook({ now }), logger: silentLogger, remember: () => Promise.resolve(), isBanned: () => false,
    connected: () => new Set(connected.map(String)),
  }, { now })
  return { router, lookedUp, put, provided }
}

async function found(router: DhtRouter): Promise<Provider[]> {
  const providers: Provider[] = []
  for await (const provider of router.find(HASH)) providers.push(provider)
  return providers
}

describe('a look-up of providers', () => {
  const [liar, other, honest, real] = ids.slice(-4) as [PeerId, PeerId, PeerId, PeerId]
  const invented = ids.slice(0, -4)

  // Watches the number of providers on the word of one peer, and that they are drawn by lot (MAX_NAMED_PROVIDERS).
  it('takes few on the word of one peer, and others each time', async () => {
    const { router } = routerOf({ words: [named(liar, invented)] })
    const [first, second] = [await found(router), await found(router)]
    expect([first.length, second.length]).toEqual([MAX_NAMED_PROVIDERS, MAX_NAMED_PROVIDERS])
    expect(first.map(({ peerId }) => peerId).toSorted()).not.toEqual(second.map(({ peerId }) => peerId).toSorted())
  })

  // Watches that who is connected is not left to the lot.
  it('takes all that are connected to this host, however many are named with them', async () => {
    for (let round = 0; round < 5; round++) {
      const { router } = routerOf({ words: [named(liar, [...invented, real])], connected: [real] })
      expect((await found(router)).map(({ peerId }) => peerId)).toContain(real.toString())
    }
  })

  // Watches the number of addresses (MAX_NAMED_ADDRESSES).
  it('takes few addresses of each', async () => {
    const { router } = routerOf({ words: [named(liar, [real], 1000)] })
    expect((await found(router)).map(({ addresses }) => addresses.length)).toEqual([MAX_NAMED_ADDRESSES])
  })

  // Watches that each peer's providers are looked into in turn (fair-queue.ts).
  it('looks into the one that an honest peer names before most of those that liars make up', async () => {
    const words = [named(liar, invented.slice(0, 200)), named(other, invented.slice(200)), named(honest, [real])]
    const { router, lookedUp } = routerOf({ words, ends: false })
    const left = new AbortController()
    const looking = router.find(HASH, { signal: left.signal }).next()
    await vi.waitFor(() => { expect(lookedUp).toHaveLength(MAX_NAMED_PROVIDERS) })
    left.abort(new Error('enough'))
    await looking
    expect(lookedUp.filter(key => key.includes(real.toString()))).toHaveLength(1)
  })

  // Watches the time for a look-up (FIND_TIMEOUT_MS): whoever is asked may never answer.
  it('comes to an end though nobody answers', async () => {
    const timeout = AbortSignal.timeout.bind(AbortSignal)
    const spans: number[] = []
    const spy = vi.spyOn(AbortSignal, 'timeout').mockImplementation(ms => {
      spans.push(ms)
      return timeout(ms / 100)
    })
    const { router } = routerOf({ words: [named(liar, invented.slice(0, 3))], ends: false })
    const providers = await found(router)
    spy.mockRestore()
    // Those whose records nobody tells of are still providers.
    expect(providers).toHaveLength(3)
    expect(Math.max(...spans)).toBeLessThanOrEqual(15_000)
  })
})

describe('announcements, when the clock jumps', () => {
  const IMAGE = { narHash: HASH, narSize: 10, manifestDigest: null }
  beforeEach(() => { vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }) })
  afterEach(() => { vi.useRealTimers() })

  // Watches that the age of an announcement is a difference without a sign (router-dht.ts).
  it.each([['ahead', DAY], ['back', -DAY]])('%s, are made again at once', async (_where, jump) => {
    let now = Date.now()
    const { router, provided } = routerOf({ now: () => now })
    router.start()
    await router.announce(IMAGE)
    await vi.advanceTimersByTimeAsync(RECORD_LIFETIME_MS / 4)
    expect(provided).toHaveLength(1)
    now += jump
    await vi.advanceTimersByTimeAsync(RECORD_LIFETIME_MS / 60)
    await vi.waitFor(() => { expect(provided).toHaveLength(2) })
    await router.stop()
  })

  // Watches that numbers go on from the clock where those before are of a time to come, and grow otherwise (nextSeq).
  it('back, get numbers that others take, and else ever higher ones', async () => {
    const start = Date.now()
    let now = start + 400 * DAY
    const { router, put } = routerOf({ now: () => now })
    const seqs: number[] = []
    for (const at of [now, now, start, start, start - CLOCK_SKEW_MS / 2]) {
      now = at
      await router.announce(IMAGE)
      const { key, value } = put.at(-1) ?? { key: new Uint8Array(), value: new Uint8Array() }
      seqs.push((await verifyRecord(key, value, at)).record.seq)
    }
    expect(seqs.map(seq => seq - start)).toEqual([400 * DAY, 400 * DAY + 1, 0, 1, 2])
  })
})
