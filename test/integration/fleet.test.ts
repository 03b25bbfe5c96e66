import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { noise } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { byteStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { describe, expect, it, onTestFinished } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { type FleetKeys, FleetKeyring, fleetKeys, handshakePrologue, KNOCK_BYTES, NO_FLEET } from '../../src/p2p/fleet.ts'
import { FLEET_NOISE_PROTOCOL } from '../../src/p2p/fleet-noise.ts'
import { newIdentity } from '../../src/p2p/identity.ts'
import { NameBook } from '../../src/p2p/names.ts'
import { RecordBook } from '../../src/p2p/record-book.ts'
import { createStack, muxer, privateKeyOf, type Stack } from '../../src/p2p/stack.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { LOOPBACK, PATIENCE_MS } from '../helpers/nodes.ts'

const OLD = rangeOf(7, 32)
const NEXT = rangeOf(8, 32)

async function startStack(fleet: FleetKeys): Promise<Stack> {
  const stack = await createStack({ gater: {}, book: new RecordBook(), names: new NameBook(), logger: silentLogger }, {
    privateKey: privateKeyOf(await newIdentity()), listen: [LOOPBACK], mdns: false, fleet, agent: 'test',
  })
  await stack.start()
  onTestFinished(async () => { await stack.stop() })
  return stack
}

/** `connected`, or the name of the error. */
async function dial(from: Stack, to: Stack): Promise<string> {
  try {
    await from.dial(to.getMultiaddrs(), { signal: AbortSignal.timeout(PATIENCE_MS) })
    await from.hangUp(to.peerId)
    await to.hangUp(from.peerId)
    return 'connected'
  } catch (error) {
    return error instanceof Error ? error.name : String(error)
  }
}

describe('a handshake', () => {
  const hosts = {
    'before the change': fleetKeys(OLD),
    'told of the next key': fleetKeys(OLD, NEXT),
    'dialling with the next key': fleetKeys(NEXT, OLD),
    'after the change': fleetKeys(NEXT),
    'of another fleet': fleetKeys(rangeOf(9, 32)),
    'of no fleet': NO_FLEET,
  }
  const names = Object.keys(hosts) as (keyof typeof hosts)[]

  it('is completed where the listening host accepts the key that the dialler has, in every state of a rotation, and nowhere else', async () => {
    const stacks = new Map(await Promise.all(names.map(async name => [name, await startStack(hosts[name])] as const)))
    const outcomes: Record<string, string> = {}
    const expected: Record<string, string> = {}
    for (const [dialler, from] of stacks) {
      // A listener has another peer id than the dialler, also where the two are in the same state.
      const twin = await startStack(hosts[dialler])
      for (const [listener, stack] of stacks) {
        const pair = `${dialler} -> ${listener}`
        outcomes[pair] = await dial(from, listener === dialler ? twin : stack)
        const key = hosts[dialler].dial
        const isLetIn = key === undefined ? listener === 'of no fleet' : hosts[listener].accept.includes(key)
        expected[pair] = isLetIn ? 'connected' : 'EncryptionFailedError'
      }
    }
    expect(outcomes).toEqual(expected)
    // Each step of a rotation leaves hosts of the step before it, or after it, reachable in both directions.
    for (const [a, b] of names.slice(0, 4).flatMap((name, index, all) => index < 3 ? [[name, all[index + 1]]] : [])) {
      expect([outcomes[`${String(a)} -> ${String(b)}`], outcomes[`${String(b)} -> ${String(a)}`]], `${String(a)}, ${String(b)}`).toEqual(['connected', 'connected'])
    }
  })

  it('follows the keyring at once when it changes', async () => {
    const ring = new FleetKeyring(fleetKeys(OLD))
    const [listener, dialler] = [await startStack(ring), await startStack(fleetKeys(NEXT))]
    expect(await dial(dialler, listener)).toBe('EncryptionFailedError')
    ring.replace(fleetKeys(OLD, NEXT))
    expect(await dial(dialler, listener)).toBe('connected')
    ring.replace(fleetKeys(OLD))
    expect(await dial(dialler, listener)).toBe('EncryptionFailedError')
  })
})

describe('what a stranger learns of a host of the fleet', () => {
  // Guard: the knock is checked before Noise's second message, which carries the static key and the peer id.
  it.each([
    ['a knock of random bytes', [rangeOf(1, 32), firstMessage()]],
    ['plain Noise', [firstMessage(), rangeOf(2, 64)]],
    ['nothing after the choice of the protocol', []],
  ])('by sending %s: the name of the encrypter and not a byte more', async (_what, parts) => {
    const host = await startStack(fleetKeys(OLD))
    const answer = await converse(host, [line('/multistream/1.0.0'), line(FLEET_NOISE_PROTOCOL), Buffer.concat(parts)].filter(part => part.length > 0))
    expect(answer.toString('latin1')).toBe(`${line('/multistream/1.0.0').toString('latin1')}${line(FLEET_NOISE_PROTOCOL).toString('latin1')}`)
  })

  it.each([['/noise'], ['/narvik/nar/1.0.0'], ['/narvik/kad/1.0.0'], ['/ipfs/id/1.0.0']])('by asking for %s: no', async protocol => {
    const host = await startStack(fleetKeys(OLD))
    const answer = await converse(host, [line('/multistream/1.0.0'), line(protocol)])
    expect(answer.toString('latin1')).toBe(`${line('/multistream/1.0.0').toString('latin1')}${line('na').toString('latin1')}`)
  })

  it('by asking for the list of protocols: encrypters, the same for every fleet', async () => {
    const answers = await Promise.all([OLD, NEXT].map(async key => (await converse(await startStack(fleetKeys(key)), [line('/multistream/1.0.0'), line('ls')])).toString('latin1')))
    expect(answers[0]).toBe(answers[1])
    expect(answers[0]).not.toMatch(/nar\/|kad|meta|id\//)
  })

  it('by playing back what a member has sent: an answer that only the member could read', async () => {
    const host = await startStack(fleetKeys(OLD))
    const overheard = await overhear(await startStack(fleetKeys(OLD)), host)
    expect(overheard).toHaveLength(66)
    const answer = await converse(host, [line('/multistream/1.0.0'), line(FLEET_NOISE_PROTOCOL), overheard])
    expect(answer.length).toBeGreaterThan(100)
    expect(answer.includes(Buffer.from(host.peerId.publicKey?.raw ?? 'none'))).toBe(false)
    // Another first message under the same knock is a stranger's.
    const other = Buffer.concat([overheard.subarray(0, 32), firstMessage()])
    expect((await converse(host, [line('/multistream/1.0.0'), line(FLEET_NOISE_PROTOCOL), other])).length).toBeLessThan(100)
  })
})

describe('who answers in the place of a member, without its key,', () => {
  // Guard: the prologue that Noise is given (fleet-noise.ts). Who is dialled could answer without the key if it were not there, and be told who dials.
  it.each([
    ['as plain Noise has none', undefined],
    ['as a key of zeros gives it', handshakePrologue(new Uint8Array(32))],
    ['as the key of another fleet gives it', handshakePrologue(NEXT)],
  ])('with a prologue %s, hears the first message after the knock, and nothing of who dials', async (_what, prologue) => {
    const dialler = await startStack(fleetKeys(OLD))
    const impostor = await startImpostor(prologue)
    // That it is dialled at no peer id leaves the handshake alone to refuse it.
    const [address = ''] = impostor.addresses.map(one => one.split('/p2p/')[0])
    const outcome = await dialler.dial(multiaddr(address), { signal: AbortSignal.timeout(PATIENCE_MS) }).then(() => 'connected', (error: unknown) => error instanceof Error ? error.name : error)
    expect(outcome).toBe('EncryptionFailedError')
    expect(impostor.heard).toEqual([firstMessage().byteLength])
    expect(impostor.met).toEqual([])
  })
})

/** Answers the fleet's Noise with whatever prologue: the bytes that it hears after the knock in each handshake, and whom it meets. */
async function startImpostor(prologueBytes: Uint8Array | undefined): Promise<{ addresses: string[], heard: number[], met: string[] }> {
  const [heard, met]: [number[], string[]] = [[], []]
  const encrypter = (components: Parameters<ReturnType<typeof noise>>[0]): ConnectionEncrypter => {
    const inner = noise({ ...(prologueBytes !== undefined && { prologueBytes }) })(components)
    return {
      protocol: FLEET_NOISE_PROTOCOL,
      secureOutbound: (connection, options) => inner.secureOutbound(connection, options),
      secureInbound: async (connection, options) => {
        const bytes = byteStream(connection)
        // It can't tell whether the knock is right, and doesn't care.
        await bytes.read({ bytes: KNOCK_BYTES })
        const at = heard.push(0) - 1
        connection.addEventListener('message', ({ data }) => { heard[at] = (heard[at] ?? 0) + data.byteLength })
        bytes.unwrap()
        const secured = await inner.secureInbound(connection, options)
        met.push(secured.remotePeer.toString())
        return secured
      },
    }
  }
  const stack = await createLibp2p({
    privateKey: privateKeyOf(await newIdentity()), addresses: { listen: [LOOPBACK] }, transports: [tcp()], streamMuxers: [muxer], connectionEncrypters: [encrypter],
    connectionGater: { denyDialMultiaddr: () => false },
  })
  onTestFinished(async () => { await stack.stop() })
  return { addresses: stack.getMultiaddrs().map(String), heard, met }
}

/** A line of multistream-select: its length, the text, a line feed. */
function line(text: string): Buffer {
  return Buffer.concat([Buffer.from([text.length + 1]), Buffer.from(`${text}\n`)])
}

/** A first message of Noise XX: a length and 32 bytes that stand for an ephemeral key. */
function firstMessage(): Buffer {
  return Buffer.concat([Buffer.from([0, 32]), rangeOf(3, 32)])
}

/** Sends the parts to a host, each after something was answered to the one before; everything that it answers until one of the two ends. */
async function converse(host: Stack, parts: readonly Uint8Array[]): Promise<Buffer> {
  const [, , , , port] = host.getMultiaddrs()[0]?.toString().split('/') ?? []
  const socket = connect(Number(port), '127.0.0.1')
  onTestFinished(() => { socket.destroy() })
  const left = [...parts]
  const answer: Buffer[] = []
  socket.on('connect', () => { socket.write(left.shift() ?? '') })
  socket.on('data', (bytes: Buffer) => {
    answer.push(bytes)
    const next = left.shift()
    // There is no more to say: the end of it ends the other end's waiting.
    if (next === undefined) socket.end()
    else socket.write(next)
  })
  socket.on('error', () => undefined)
  await new Promise(resolve => { socket.on('close', resolve) })
  return Buffer.concat(answer)
}

/** What `dialler` sends first to somebody whom it takes for `host`. */
async function overhear(dialler: Stack, host: Stack): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>()
  const server = createServer((socket: Socket) => {
    let heard = Buffer.alloc(0)
    let isAgreed = false
    const wanted = line(FLEET_NOISE_PROTOCOL)
    // The dialler would rather speak TLS.
    socket.write(Buffer.concat([line('/multistream/1.0.0'), line('na')]))
    socket.on('error', () => undefined)
    socket.on('data', (bytes: Buffer) => {
      heard = Buffer.concat([heard, bytes])
      const at = heard.indexOf(wanted)
      if (at < 0) return
      if (!isAgreed) socket.write(wanted)
      isAgreed = true
      if (heard.length >= at + wanted.length + 66) resolve(heard.subarray(at + wanted.length))
    })
  })
  onTestFinished(() => { server.close() })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const given = new AbortController()
  dialler.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}/p2p/${host.peerId.toString()}`), { signal: given.signal }).catch(() => undefined)
  const heard = await promise
  given.abort()
  return heard
}
