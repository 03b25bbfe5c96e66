import type { Stream } from '@libp2p/interface'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import { READ_HIGH_WATER_BYTES, STREAM_WINDOW_BYTES } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { encodeHeader, readHeader } from '../../src/p2p/header.ts'
import { fetchNar, type NarAnswer } from '../../src/p2p/nar/client.ts'
import { narHandler, type NarHandlerComponents } from '../../src/p2p/nar/handler.ts'
import { narReply, narRequest } from '../../src/p2p/nar/messages.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { StreamReader } from '../../src/p2p/stream-reader.ts'
import { byteAt, MadeUpSource, rangeOf } from '../helpers/bytes.ts'
import { expectFailure, failureOf } from '../helpers/failure.ts'
import { connectTo, served, streamPair } from '../helpers/stream-pair.ts'

const HASH = NarHash.fromBytes(rangeOf(0, 32))
const OTHER = NarHash.fromBytes(rangeOf(1, 32))
const MIB = 1024 * 1024

function handlerOf(source: MadeUpSource, components: Partial<NarHandlerComponents> = {}, init = {}): (stream: Stream) => Promise<void> {
  return served(narHandler({
    source, slots: new Slots(4), logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => ({ received: 0, sent: 0 }), ...components,
  }, init))
}

async function collect(answer: NarAnswer): Promise<Uint8Array> {
  if (answer.status !== 'ok') throw new Error(`answered ${answer.status}`)
  const parts: Uint8Array[] = []
  for await (const part of answer.body) parts.push(part)
  return Buffer.concat(parts)
}

async function expectPeerFailed(promise: Promise<unknown>, text: RegExp): Promise<void> {
  await expectFailure(promise, 'peer-failed', text)
}

async function expectClosed(...streams: Stream[]): Promise<void> {
  for (const stream of streams) await vi.waitFor(() => { expect(['closed', 'reset', 'aborted']).toContain(stream.status) })
}

describe('both ends', () => {
  it('move exactly the range that is asked for', async () => {
    const source = new MadeUpSource(HASH, 300_000)
    await fc.assert(fc.asyncProperty(fc.nat(300_000), fc.nat(300_000), fc.integer({ min: 1, max: 200_000 }), async (a, b, bufferBytes) => {
      source.bufferBytes = bufferBytes
      const [offset, end] = a < b ? [a, b] : [b, a]
      const { opener, streams, traffic } = connectTo(handlerOf(source))
      const bytes = await collect(await fetchNar(opener, 'peer', HASH, offset, end - offset))
      expect(Buffer.compare(bytes, rangeOf(offset, end - offset))).toBe(0)
      expect(traffic.received).toBe(end - offset)
      await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
    }), { numRuns: 20 })
  })

  it('answer not-found, refused and busy, and end the stream', async () => {
    const source = new MadeUpSource(HASH, 1000)
    const slots = new Slots(1)
    const { opener, streams } = connectTo(handlerOf(source, { slots }))
    expect(await fetchNar(opener, 'peer', OTHER, 0, 1)).toEqual({ status: 'not-found' })
    expect(await fetchNar(opener, 'peer', HASH, 900, 101)).toEqual({ status: 'refused' })
    const release = slots.take()
    expect(await fetchNar(opener, 'peer', HASH, 0, 1)).toEqual({ status: 'busy' })
    release?.()
    expect(await collect(await fetchNar(opener, 'peer', HASH, 999, 1))).toHaveLength(1)
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
    expect(source.reading).toBe(0)
  })

  it('keep the books of both directions', async () => {
    const books = { received: 0, sent: 0 }
    const { opener, traffic } = connectTo(handlerOf(new MadeUpSource(HASH, MIB), { trafficOf: () => books }))
    await collect(await fetchNar(opener, 'peer', HASH, 0, MIB))
    expect(books).toEqual({ received: 0, sent: MIB })
    expect(traffic).toEqual({ received: MIB, sent: 0 })
  })
})

describe('a reader that stalls', () => {
  it('stops the source after a window and the buffers, and gets every byte when it goes on', async () => {
    const source = new MadeUpSource(HASH, 40 * MIB)
    const { opener } = connectTo(handlerOf(source))
    const answer = await fetchNar(opener, 'peer', HASH, 0, source.size)
    if (answer.status !== 'ok') throw new Error(answer.status)
    let taken = 0
    const pulledWhileStalled: number[] = []
    for await (const bytes of answer.body) {
      expect(bytes[0]).toBe(byteAt(taken))
      const before = taken
      taken += bytes.byteLength
      if (Math.floor(before / (8 * MIB)) === Math.floor(taken / (8 * MIB))) continue
      await untilSteady(() => source.pulled)
      pulledWhileStalled.push(source.pulled - taken)
    }
    expect(taken).toBe(source.size)
    expect(pulledWhileStalled.length).toBeGreaterThan(3)
    const most = STREAM_WINDOW_BYTES + READ_HIGH_WATER_BYTES + MIB
    for (const pulled of pulledWhileStalled) expect(pulled).toBeLessThanOrEqual(most)
  })

  it('is cut off by the serving end', async () => {
    const source = new MadeUpSource(HASH, 40 * MIB)
    const { opener, streams } = connectTo(handlerOf(source, {}, { stallMs: 50 }))
    const answer = await fetchNar(opener, 'peer', HASH, 0, source.size)
    if (answer.status !== 'ok') throw new Error(answer.status)
    const body = answer.body[Symbol.asyncIterator]()
    await body.next()
    await vi.waitFor(() => { expect(streams[0]?.far.status).toBe('aborted') })
    expect(source.reading).toBe(0)
    await expectPeerFailed((async () => { while ((await body.next()).done !== true); })(), /reset/)
  })

  it('does not keep a stream whose body is never read', async () => {
    const { opener, streams } = connectTo(handlerOf(new MadeUpSource(HASH, 40 * MIB)))
    await fetchNar(opener, 'peer', HASH, 0, 40 * MIB, { stallMs: 30 })
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
  })

  it('is not taken for a peer that stalls', async () => {
    const { opener } = connectTo(handlerOf(new MadeUpSource(HASH, 3 * MIB)))
    const answer = await fetchNar(opener, 'peer', HASH, 0, 3 * MIB, { stallMs: 40 })
    if (answer.status !== 'ok') throw new Error(answer.status)
    let taken = 0
    for await (const bytes of answer.body) {
      if (taken === 0) await new Promise(resolve => { setTimeout(resolve, 120) })
      taken += bytes.byteLength
    }
    expect(taken).toBe(3 * MIB)
  })
})

describe('a peer that serves wrongly gives peer-failed', () => {
  const ok = (length: number): Uint8Array => encodeHeader({ version: 1, status: 'ok', length })

  it.each<[string, RegExp, (stream: Stream) => void | Promise<void>]>([
    ['a body that is cut short', /found its end after 5 bytes, needed 10/, async stream => { stream.send(ok(10)); stream.send(rangeOf(0, 5)); await stream.close() }],
    ['bytes after the body', /bytes after the last one/, async stream => { stream.send(ok(10)); stream.send(rangeOf(0, 11)); await stream.close() }],
    ['an offer of fewer bytes', /an offer of 9 bytes, needed 10/, async stream => { stream.send(ok(9)); stream.send(rangeOf(0, 9)); await stream.close() }],
    ['an offer of more bytes', /an offer of 11 bytes, needed 10/, async stream => { stream.send(ok(11)); stream.send(rangeOf(0, 11)); await stream.close() }],
    ['a reset in the body', /reset/, async stream => {
      stream.send(ok(10))
      stream.send(rangeOf(0, 5))
      await new Promise(setImmediate)
      stream.abort(new Error('no'))
    }],
    ['a reset at once', /reset/, stream => { stream.abort(new Error('no')) }],
    ['an end without a reply', /end of the stream after 0 bytes/, async stream => { await stream.close() }],
    ['a header with a length over the limit', /length of 65537/, stream => { stream.send(Uint8Array.of(0x81, 0x80, 0x04)) }],
    ['a header with a length of four bytes', /length of more than 3 bytes/, stream => { stream.send(Uint8Array.of(0x80, 0x80, 0x80, 0x01)) }],
    ['a header with a length in a longer form', /longer form/, stream => { stream.send(Uint8Array.of(0x82, 0x00)) }],
    ['a header of no bytes', /length of 0/, stream => { stream.send(Uint8Array.of(0)) }],
    ['a header that is no JSON', /no JSON/, stream => { stream.send(Uint8Array.of(2, 0x7b, 0x7b)) }],
    ['a header that is no UTF-8', /no JSON/, stream => { stream.send(Uint8Array.of(4, 0x22, 0xff, 0xff, 0x22)) }],
    ['a header of another version', /at version/, stream => { stream.send(encodeHeader({ version: 2, status: 'ok', length: 10 })) }],
    ['a header with an unknown field', /Unrecognized key/, stream => { stream.send(encodeHeader({ version: 1, status: 'ok', length: 10, more: 1 })) }],
    ['a header with an unknown status', /at status/, stream => { stream.send(encodeHeader({ version: 1, status: 'maybe' })) }],
    ['bytes after a refusal', /bytes after the last one/, async stream => {
      stream.send(encodeHeader({ version: 1, status: 'busy' }))
      stream.send(rangeOf(0, 1))
      await stream.close()
    }],
    ['nothing at all', /no whole reply for 60 ms/, () => undefined],
    ['a header that never ends', /no whole reply for 60 ms/, stream => { stream.send(Uint8Array.of(40, 0x7b)) }],
    ['silence in the body', /no byte of the body for 50 ms/, stream => { stream.send(ok(10)); stream.send(rangeOf(0, 5)) }],
    ['no end after the body', /no end of the stream for 50 ms/, stream => { stream.send(ok(10)); stream.send(rangeOf(0, 10)) }],
  ])('%s', async (_what, text, server) => {
    const { opener, streams } = connectTo(server)
    const fetched = fetchNar(opener, 'peer', HASH, 0, 10, { stallMs: 50, headerTimeoutMs: 60 }).then(collect)
    await expectPeerFailed(fetched, text)
    await expectPeerFailed(fetched, /^NarvikError: Cannot receive bytes 0 to 10 of [0-9a-z]{52} from peer peer: /)
    await expectClosed(...streams.map(({ near }) => near))
  })
})

describe('an asker that asks wrongly', () => {
  it.each<[string, (stream: Stream) => void | Promise<void>]>([
    ['a header over the limit', stream => { stream.send(Uint8Array.of(0x81, 0x80, 0x04)) }],
    ['no JSON', stream => { stream.send(Uint8Array.of(2, 0x7b, 0x7b)) }],
    ['another version', stream => { stream.send(encodeHeader({ version: 2, narHash: HASH.toSri(), offset: 0, length: 1 })) }],
    ['a negative offset', stream => { stream.send(encodeHeader({ version: 1, narHash: HASH.toSri(), offset: -1, length: 1 })) }],
    ['an offset that is no integer', stream => { stream.send(encodeHeader({ version: 1, narHash: HASH.toSri(), offset: 0.5, length: 1 })) }],
    ['an absurd length', stream => { stream.send(encodeHeader({ version: 1, narHash: HASH.toSri(), offset: 0, length: 2 ** 60 })) }],
    ['bytes after the request', async stream => {
      stream.send(encodeHeader({ version: 1, narHash: HASH.toSri(), offset: 0, length: 1 }))
      stream.send(rangeOf(0, 1))
      await stream.close()
    }],
    ['an end before the request is whole', async stream => { stream.send(Uint8Array.of(20, 1)); await stream.close() }],
    ['a request that never ends', stream => { stream.send(Uint8Array.of(20, 1)) }],
    ['nothing', () => undefined],
  ])('is reset after %s, and nothing is read for it', async (_what, asker) => {
    const source = new MadeUpSource(HASH, 1000)
    const { near, far } = await streamPair()
    const serving = handlerOf(source, {}, { headerTimeoutMs: 60 })(far)
    await asker(near)
    await serving
    expect(far.status).toBe('aborted')
    expect(source.pulled).toBe(0)
  })

  it('gives its slot back when it leaves in the body', async () => {
    const source = new MadeUpSource(HASH, 40 * MIB)
    const slots = new Slots(1)
    const { opener, streams } = connectTo(handlerOf(source, { slots }))
    const answer = await fetchNar(opener, 'peer', HASH, 0, source.size)
    if (answer.status !== 'ok') throw new Error(answer.status)
    for await (const bytes of answer.body) if (bytes.byteLength > 0) break
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
    await vi.waitFor(() => { expect(source.reading).toBe(0) })
    await vi.waitFor(() => { expect(slots.take()).toBeDefined() })
  })
})

describe('a source that lies', () => {
  it.each([['ends early', 500], ['has more than was asked for', 2000]])('resets the stream where it %s', async (_what, found) => {
    const source = new MadeUpSource(HASH, 1000)
    source.read = async function* () { await Promise.resolve(); yield rangeOf(0, found) }
    const { opener } = connectTo(handlerOf(source))
    const got: number[] = []
    await expectPeerFailed((async () => {
      const answer = await fetchNar(opener, 'peer', HASH, 0, 1000)
      if (answer.status === 'ok') for await (const part of answer.body) got.push(part.byteLength)
    })(), /reset/)
    expect(got.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(1000)
  })

  it('fails in the middle: the stream is reset', async () => {
    const source = new MadeUpSource(HASH, 1000)
    source.read = async function* () { await Promise.resolve(); yield rangeOf(0, 10); throw new Error('the disk is gone') }
    const { opener } = connectTo(handlerOf(source))
    await expectPeerFailed(fetchNar(opener, 'peer', HASH, 0, 1000).then(collect), /reset/)
  })
})

describe('whoever gives up', () => {
  it('the asker: its own reason is thrown, and the serving end stops reading', async () => {
    const source = new MadeUpSource(HASH, 40 * MIB)
    const controller = new AbortController()
    const { opener, streams } = connectTo(handlerOf(source))
    const answer = await fetchNar(opener, 'peer', HASH, 0, source.size, { signal: controller.signal })
    if (answer.status !== 'ok') throw new Error(answer.status)
    const reason = new Error('enough')
    const error = await failureOf((async () => {
      for await (const bytes of answer.body) if (bytes.byteLength > 0) controller.abort(reason)
    })())
    expect(error).toBe(reason)
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
    await vi.waitFor(() => { expect(source.reading).toBe(0) })
  })

  it('the asker, before the reply', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    const { opener, streams } = connectTo(() => { controller.abort(reason) })
    expect(await failureOf(fetchNar(opener, 'peer', HASH, 0, 1, { signal: controller.signal }))).toBe(reason)
    await expectClosed(...streams.map(({ near }) => near))
  })

  it('the serving host, which stops', async () => {
    const stopping = new AbortController()
    const source = new MadeUpSource(HASH, 40 * MIB)
    const { opener } = connectTo(handlerOf(source, { stopping: stopping.signal }))
    const answer = await fetchNar(opener, 'peer', HASH, 0, source.size)
    if (answer.status !== 'ok') throw new Error(answer.status)
    await expectPeerFailed((async () => {
      for await (const bytes of answer.body) if (bytes.byteLength > 0) stopping.abort(new Error('stopping'))
    })(), /reset/)
    await vi.waitFor(() => { expect(source.reading).toBe(0) })
  })
})

describe('messages', () => {
  it('come back as they were sent', async () => {
    await fc.assert(fc.asyncProperty(fc.nat(), fc.nat(), async (offset, length) => {
      const { near, far } = await streamPair()
      const reader = new StreamReader(far)
      near.send(encodeHeader({ version: 1, narHash: HASH.toSri(), offset, length }))
      near.send(encodeHeader({ version: 1, status: 'ok', length }))
      const request = await readHeader(reader, narRequest)
      expect(request).toMatchObject({ version: 1, offset, length })
      expect(request.narHash.equals(HASH)).toBe(true)
      expect(await readHeader(reader, narReply)).toEqual({ version: 1, status: 'ok', length })
    }), { numRuns: 20 })
  })
})

/** Waits until a number has stayed the same for a while. */
async function untilSteady(read: () => number): Promise<void> {
  let last = read()
  for (let same = 0; same < 5;) {
    await new Promise(resolve => { setTimeout(resolve, 10) })
    const now = read()
    same = now === last ? same + 1 : 0
    last = now
  }
}
