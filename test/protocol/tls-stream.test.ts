import { connect as connectTcp, createServer } from 'node:net'
import type { MessageStream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { TLS_BUFFER_BYTES } from '../../src/limits.ts'
import { copied, freeOnceCopied } from '../../src/p2p/freeing.ts'
import { bytesAt, count, pump } from '../helpers/pattern-stream.ts'
import { dial, expectGone, listen, party, secure, socketOf } from '../helpers/tls-pair.ts'

const MIB = 1024 * 1024

function isFree({ buffer }: Uint8Array): boolean {
  return buffer instanceof ArrayBuffer && buffer.detached
}

/** Two secured ends. */
async function channel(): Promise<Awaited<ReturnType<typeof secure>> & { out: MessageStream, inn: MessageStream }> {
  const ends = await secure()
  const [{ connection: out }, { connection: inn }] = await Promise.all([ends.outbound, ends.inbound])
  return { ...ends, out, inn }
}

describe('a secured connection', () => {
  it('moves much in both directions', async () => {
    const { out, inn } = await channel()
    const seen = [count(out), count(inn)]
    await Promise.all([pump(out, 16 * MIB), pump(inn, 16 * MIB)])
    await vi.waitFor(() => { expect(seen).toEqual([{ bytes: 16 * MIB, wrong: false }, { bytes: 16 * MIB, wrong: false }]) }, { timeout: 20_000 })
  })

  it('holds the sender up while the reader pauses, and loses nothing', async () => {
    const { out, inn } = await channel()
    const seen = count(inn)
    inn.pause()
    let sent = 0
    while (sent < 64 * MIB && out.send(bytesAt(sent, 64 * 1024))) {
      sent += 64 * 1024
      await new Promise(resolve => { setImmediate(resolve) })
    }
    sent += 64 * 1024
    // The buffers of both ends, and those of the system between them.
    expect(sent).toBeLessThan(2 * TLS_BUFFER_BYTES + 24 * MIB)
    expect(seen.bytes).toBe(0)
    expect(inn.readBufferLength).toBeLessThan(MIB)
    inn.resume()
    await vi.waitFor(() => { expect(seen).toEqual({ bytes: sent, wrong: false }) }, { timeout: 20_000 })
  })

  it('frees what it has sent and what was copied at the other end, and changes none of it, though it takes it in parts', async () => {
    const { out, inn } = await channel()
    const [sent, came]: [Uint8Array[], Uint8Array[]] = [[], []]
    inn.addEventListener('message', ({ data }) => { came.push(...data instanceof Uint8Array ? [data] : data) })
    const seen = count(inn)
    for (let at = 0; at < 16 * MIB;) {
      // Several of them in one frame, within which the buffers of TLS end: what comes before goes, what comes after stays.
      let hasRoom = true
      for (const length of [7000, TLS_BUFFER_BYTES / 2 - 1000, TLS_BUFFER_BYTES / 2]) {
        const bytes = Uint8Array.from(bytesAt(at, length))
        freeOnceCopied(bytes)
        sent.push(bytes)
        hasRoom = out.send(bytes)
        at += length
      }
      if (!hasRoom) await new Promise(resolve => { out.addEventListener('drain', resolve, { once: true }) })
    }
    const length = sent.length / 3 * (TLS_BUFFER_BYTES + 6000)
    await vi.waitFor(() => { expect(seen).toEqual({ bytes: length, wrong: false }) }, { timeout: 20_000 })
    expect(sent.every(isFree)).toBe(true)
    expect(came.some(isFree)).toBe(false)
    for (const bytes of came) copied(bytes)
    expect(came.filter(isFree).length).toBeGreaterThan(came.length * 0.9)
  })

  it('closes when all that was sent has arrived', async () => {
    const { near, far, out, inn } = await channel()
    const seen = count(inn)
    for (let at = 0; at < 3 * MIB; at += MIB / 2) out.send(bytesAt(at, MIB / 2))
    await near.close({ signal: AbortSignal.timeout(10_000) })
    await expectGone(near, far)
    expect(seen).toEqual({ bytes: 3 * MIB, wrong: false })
    expect([out.status, inn.status]).toEqual(['closed', 'closed'])
  })

  it('is closed through either of its streams', async () => {
    const { near, far, inn } = await channel()
    await inn.close({ signal: AbortSignal.timeout(10_000) })
    await expectGone(near, far)
  })

  it.each(['stream', 'connection'] as const)('is gone at both ends once its %s is aborted, even in the middle of much', async what => {
    const { near, far, out, inn } = await channel()
    const closed = vi.fn()
    inn.addEventListener('close', closed)
    inn.pause()
    while (out.send(new Uint8Array(256 * 1024))) { /* until nothing more goes */ }
    ;(what === 'stream' ? out : near).abort(new Error('enough'))
    await expectGone(near, far)
    expect(out.status).toBe('aborted')
    await vi.waitFor(() => { expect(closed).toHaveBeenCalledTimes(1) })
  })

  it('ends when the other end is gone without a word', async () => {
    const { near, far, inn } = await channel()
    socketOf(near).destroy()
    await expectGone(near, far)
    await vi.waitFor(() => { expect(inn.status).not.toBe('open') })
  })

  it('breaks, and gives nothing on, where a byte was changed on the way', async () => {
    const answerer = await party()
    const { promise, resolve } = Promise.withResolvers<Awaited<ReturnType<typeof answerer.encrypter.secureInbound>>>()
    const address = await listen(connection => { answerer.encrypter.secureInbound(connection).then(resolve, () => undefined) })
    let tampering = false
    const proxy = createServer(client => {
      const server = connectTcp(Number(address.getComponents()[1]?.value), '127.0.0.1')
      client.on('data', bytes => {
        if (tampering) bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1)
        server.write(bytes)
      })
      server.pipe(client)
      client.on('error', () => undefined).on('close', () => { server.destroy() })
      server.on('error', () => undefined).on('close', () => { client.destroy() })
    })
    await new Promise<void>(done => { proxy.listen(0, '127.0.0.1', done) })
    onTestFinished(() => { proxy.close() })
    const near = await dial(multiaddr(`/ip4/127.0.0.1/tcp/${String((proxy.address() as { port: number }).port)}`))
    const { connection: out } = await (await party()).encrypter.secureOutbound(near)
    const { connection: inn } = await promise
    const seen = count(inn)
    tampering = true
    out.send(bytesAt(0, 1000))
    await expectGone(near)
    expect(inn.status).toBe('aborted')
    expect(seen.bytes).toBe(0)
  })
})
