/**
 * What the muxer and the connection manager are told to refuse, with numbers that are small enough to be reached: peers that open more streams on a
 * connection than it may have, more connections than the host may have, and more of them in a second than one address may open.
 */
import { noise } from '@chainsafe/libp2p-noise'
import type { Connection, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p, type Libp2p } from 'libp2p'
import { connect } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { NO_FLEET } from '../../src/p2p/fleet.ts'
import { newIdentity } from '../../src/p2p/identity.ts'
import { NameBook } from '../../src/p2p/names.ts'
import { RecordBook } from '../../src/p2p/record-book.ts'
import { createStack, privateKeyOf, type Stack } from '../../src/p2p/stack.ts'
import { LOOPBACK, PATIENCE_MS } from '../helpers/nodes.ts'

const { STREAMS, CONNECTIONS, IN_A_SECOND } = vi.hoisted(() => ({ STREAMS: 24, CONNECTIONS: 6, IN_A_SECOND: 30 }))
vi.mock(import('../../src/limits.ts'), async original => ({
  ...await original(), MAX_MUXED_STREAMS: STREAMS as never, MAX_CONNECTIONS: CONNECTIONS as never, MAX_INBOUND_CONNECTIONS_PER_SECOND: IN_A_SECOND as never,
}))

async function startHost(): Promise<Stack> {
  const host = await createStack({ gater: {}, book: new RecordBook(), names: new NameBook(), logger: silentLogger }, {
    privateKey: privateKeyOf(await newIdentity()), listen: [LOOPBACK], mdns: false, fleet: NO_FLEET, agent: 'test',
  })
  await host.start()
  onTestFinished(() => host.stop())
  return host
}

/** A peer that has no limits of its own. */
async function startGreedy(): Promise<Libp2p> {
  const many = { maxInboundStreams: 10_000, maxOutboundStreams: 10_000 }
  const peer = await createLibp2p({ transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux(many)], connectionGater: { denyDialMultiaddr: () => false } })
  onTestFinished(() => peer.stop())
  return peer
}

/** A stream that names no protocol: the muxer alone has to do with it. */
function openBare(connection: Connection): Promise<Stream> {
  const { muxer } = connection as unknown as { muxer: { createStream(options: object): Promise<Stream> } }
  return muxer.createStream({})
}

describe('who opens', () => {
  // Guard: MAX_MUXED_STREAMS in stack.ts. Streams that name no protocol are counted by no protocol's limit.
  it('more streams on a connection than it may have, has the surplus reset, and the others go on', async () => {
    const [host, greedy] = [await startHost(), await startGreedy()]
    const connection = await greedy.dial(host.getMultiaddrs())
    // Before that the muxer takes streams for early ones, of which it has another limit.
    await vi.waitFor(() => { expect(host.getConnections()).toHaveLength(1) }, { timeout: PATIENCE_MS })
    const streams: Stream[] = []
    for (let count = 0; count < 4 * STREAMS; count++) {
      const stream = await openBare(connection)
      stream.send(Uint8Array.of(19))
      streams.push(stream)
    }
    await vi.waitFor(() => { expect(streams.filter(({ status }) => status === 'reset').length).toBeGreaterThanOrEqual(3 * STREAMS) }, { timeout: PATIENCE_MS / 6 })
    expect(host.getConnections()[0]?.streams.length).toBeLessThanOrEqual(STREAMS)
    expect(connection.status).toBe('open')
  })

  // Guard: MAX_CONNECTIONS in stack.ts.
  it('more connections than the host may have, in all, finds the surplus closed', async () => {
    const host = await startHost()
    for (let count = 0; count < 2 * CONNECTIONS; count++) await (await startGreedy()).dial(host.getMultiaddrs(), { signal: AbortSignal.timeout(PATIENCE_MS) }).catch(() => undefined)
    await vi.waitFor(() => { expect(host.getConnections()).toHaveLength(CONNECTIONS) }, { timeout: PATIENCE_MS / 6 })
  })

  // Guard: MAX_INBOUND_CONNECTIONS_PER_SECOND in stack.ts. Who closes each at once never has many open.
  it('more connections in a second than one address may, is not answered on the surplus', async () => {
    const host = await startHost()
    const [, , , , port] = host.getMultiaddrs()[0]?.toString().split('/') ?? []
    const answers = await Promise.all(Array.from({ length: 4 * IN_A_SECOND }, () => knock(Number(port))))
    const answered = answers.filter(isAnswered => isAnswered).length
    expect(answered).toBeGreaterThan(0)
    // However slow the machine is, they come within two of its seconds.
    expect(answered).toBeLessThanOrEqual(2 * IN_A_SECOND)
  })
})

/** Whether a new connection is answered. */
async function knock(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  let isAnswered = false
  socket.on('error', () => undefined).on('data', () => { isAnswered = true; socket.destroy() }).write('\x13/multistream/1.0.0\n')
  await new Promise(resolve => { socket.on('close', resolve) })
  return isAnswered
}
