import type { Stream } from '@libp2p/interface'
import { describe, expect, it, vi } from 'vitest'
import { MAX_CLOSURE_PATHS, MAX_PACKED_NAR_BYTES, MAX_PACKED_NARS, WIRE_BUFFER_BYTES } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { fetchClosurePaths, fetchNars, type WantedNar } from '../../src/p2p/closure/client.ts'
import { closureHandler, type ClosureHandlerComponents } from '../../src/p2p/closure/handler.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { InFlight } from '../../src/p2p/in-flight.ts'
import type { ClosurePath } from '../../src/p2p/protocol.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { expectFailure } from '../helpers/failure.ts'
import { someHash, someStorePath } from '../helpers/images.ts'
import { connectTo, served, streamPair } from '../helpers/stream-pair.ts'

/** A path that refers to the one before it, and every third to itself. */
function pathAt(number: number): ClosurePath {
  return {
    narHash: someHash(number), narSize: 100 + number, storePath: someStorePath(number), deriver: null, ca: null, signatures: ['key-1:AAAA'], manifestDigest: null,
    references: [...number > 0 ? [number - 1] : [], ...number % 3 === 0 ? [number] : []],
  }
}

const CLOSURE = Array.from({ length: 3000 }, (_, number) => pathAt(number))
const ROOT = CLOSURE.length - 1
const QUICK = { stallMs: 60, headerTimeoutMs: 80 }

function handlerOf(components: Partial<ClosureHandlerComponents> = {}): (stream: Stream) => Promise<void> {
  return served(closureHandler({
    source: { read: (_narHash, offset, length) => pieces(rangeOf(offset, length), 40_000) },
    closures: {
      closure: narHash => Promise.resolve(narHash.equals(someHash(ROOT)) ? CLOSURE : narHash.equals(someHash('alone')) ? 'incomplete' : 'not-found'),
      narSize: narHash => CLOSURE.find(path => path.narHash.equals(narHash))?.narSize,
    },
    slots: new Slots(1), logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => ({ received: 0, sent: 0 }), ...components,
  }, QUICK))
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield await Promise.resolve(bytes.subarray(start, start + size))
}

async function bytesOf(nar: AsyncIterable<Uint8Array> | null): Promise<Buffer> {
  const parts: Uint8Array[] = []
  if (nar !== null) for await (const bytes of nar) parts.push(bytes)
  return Buffer.concat(parts)
}

async function collect(nars: AsyncIterable<AsyncIterable<Uint8Array> | null>): Promise<(Buffer | null)[]> {
  const all: (Buffer | null)[] = []
  for await (const nar of nars) all.push(nar === null ? null : await bytesOf(nar))
  return all
}

async function expectClosed(...streams: Stream[]): Promise<void> {
  for (const stream of streams) await vi.waitFor(() => { expect(['closed', 'reset', 'aborted']).toContain(stream.status) })
}

const lengthOf = (length: number | bigint): Uint8Array => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(length))
  return Uint8Array.from(bytes)
}

describe('both ends', () => {
  it('tell and hear of thousands of paths in one exchange', async () => {
    const { opener, streams, traffic } = connectTo(handlerOf())
    expect(await fetchClosurePaths(opener, 'peer', someHash(ROOT))).toEqual({ status: 'ok', paths: CLOSURE })
    expect(streams).toHaveLength(1)
    expect(traffic.received).toBeGreaterThan(CLOSURE.reduce((sum, { storePath }) => sum + storePath.length, 0))
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
  })

  it('tell of an image that refers to itself', async () => {
    const alone = { ...pathAt(0), references: [0] }
    const { opener } = connectTo(handlerOf({ closures: { closure: () => Promise.resolve([alone]), narSize: () => undefined } }))
    expect(await fetchClosurePaths(opener, 'peer', someHash(0))).toEqual({ status: 'ok', paths: [alone] })
  })

  it('answer not-found, incomplete and busy', async () => {
    const slots = new Slots(1)
    const { opener } = connectTo(handlerOf({ slots }))
    expect(await fetchClosurePaths(opener, 'peer', someHash('none'))).toEqual({ status: 'not-found' })
    expect(await fetchClosurePaths(opener, 'peer', someHash('alone'))).toEqual({ status: 'incomplete' })
    const release = slots.take()
    expect(await fetchClosurePaths(opener, 'peer', someHash(ROOT))).toEqual({ status: 'busy' })
    expect(await fetchNars(opener, 'peer', [pathAt(0)])).toEqual({ status: 'busy' })
    release?.()
    expect(await fetchClosurePaths(opener, 'peer', someHash(ROOT))).toMatchObject({ status: 'ok' })
  })

  it('move a thousand small NARs in few messages, and say which are not there', async () => {
    const wanted: WantedNar[] = CLOSURE.slice(0, MAX_PACKED_NARS - 1)
    let sends = 0
    const handler = handlerOf()
    const { opener, streams, traffic } = connectTo(stream => {
      const send = stream.send.bind(stream)
      stream.send = bytes => {
        sends++
        return send(bytes)
      }
      return handler(stream)
    })
    const answer = await fetchNars(opener, 'peer', [...wanted, { narHash: someHash('none'), narSize: 5 }])
    if (answer.status !== 'ok') throw new Error(answer.status)
    expect(await collect(answer.nars)).toEqual([...wanted.map(({ narSize }) => Buffer.from(rangeOf(0, narSize))), null])
    expect(streams).toHaveLength(1)
    expect(sends).toBeLessThan(20)
    expect(traffic.received).toBe(wanted.reduce((sum, { narSize }) => sum + narSize + 8, 8))
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
  })

  it('pass over what nobody reads, and end where the reader leaves', async () => {
    const size = 300_000
    const big = { narHash: someHash('big'), narSize: size }
    const closures = { closure: () => Promise.resolve('not-found' as const), narSize: () => size }
    const { opener, streams } = connectTo(handlerOf({ closures }))
    const answer = await fetchNars(opener, 'peer', [big, big, big])
    if (answer.status !== 'ok') throw new Error(answer.status)
    let count = 0
    for await (const nar of answer.nars) if (++count === 2) expect((await bytesOf(nar)).equals(rangeOf(0, size))).toBe(true)
    expect(count).toBe(3)
    const second = await fetchNars(opener, 'peer', [big, big])
    if (second.status !== 'ok') throw new Error(second.status)
    for await (const nar of second.nars) {
      expect(nar).not.toBeNull()
      break
    }
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
    // Not only closed once all has come.
    expect(streams[1]?.near.status).toBe('aborted')
  })

  it('send pieces that are not large, whatever those are that were read', async () => {
    const big = { narHash: someHash('big'), narSize: 3_000_000 }
    const closures = { closure: () => Promise.resolve('not-found' as const), narSize: () => big.narSize }
    const handler = handlerOf({ closures, source: { read: (_narHash, offset, length) => pieces(rangeOf(offset, length), length) } })
    let largest = 0
    const { opener } = connectTo(stream => {
      const send = stream.send.bind(stream)
      stream.send = bytes => {
        largest = Math.max(largest, bytes.byteLength)
        return send(bytes)
      }
      return handler(stream)
    })
    const answer = await fetchNars(opener, 'peer', [big])
    if (answer.status !== 'ok') throw new Error(answer.status)
    expect((await collect(answer.nars))[0]?.equals(rangeOf(0, big.narSize))).toBe(true)
    expect(largest).toBeLessThanOrEqual(WIRE_BUFFER_BYTES)
  })

  it('count what was read for a peer until the peer has taken it', async () => {
    const inFlight = new InFlight()
    const flight = inFlight.newPeer()
    let most = 0
    const source = {
      read: async function* (_narHash: unknown, offset: number, length: number) {
        most = Math.max(most, inFlight.total)
        yield* pieces(rangeOf(offset, length), 40_000)
      },
    }
    const { opener } = connectTo(handlerOf({ source, trafficOf: () => ({ received: 0, sent: 0, flight }) }))
    const answer = await fetchNars(opener, 'peer', [pathAt(0), pathAt(1)])
    if (answer.status !== 'ok') throw new Error(answer.status)
    await collect(answer.nars)
    expect(most).toBe(WIRE_BUFFER_BYTES)
    await vi.waitFor(() => { expect(inFlight.total).toBe(0) })
  })

  it('send no NAR that is too large to be packed', async () => {
    const closures = { closure: () => Promise.resolve('not-found' as const), narSize: () => MAX_PACKED_NAR_BYTES + 8 }
    const { opener } = connectTo(handlerOf({ closures }))
    const answer = await fetchNars(opener, 'peer', [{ narHash: someHash(0), narSize: MAX_PACKED_NAR_BYTES + 8 }])
    if (answer.status !== 'ok') throw new Error(answer.status)
    expect(await collect(answer.nars)).toEqual([null])
  })

  it('reset the stream where a NAR ends early, and give the slot back', async () => {
    const slots = new Slots(1)
    const { opener } = connectTo(handlerOf({ slots, source: { read: (_narHash, offset, length) => pieces(rangeOf(offset, length - 1), 50) } }))
    const answer = await fetchNars(opener, 'peer', [pathAt(0)], QUICK)
    if (answer.status !== 'ok') throw new Error(answer.status)
    await expectFailure(collect(answer.nars), 'peer-failed', /reset/)
    expect(slots.take()).toBeDefined()
  })
})

describe('a peer that tells of a closure wrongly gives peer-failed', () => {
  const ok = (count: number): Uint8Array => encodeHeader({ version: 1, status: 'ok', count })
  const tell = (...paths: object[]) => async (stream: Stream): Promise<void> => {
    stream.send(ok(paths.length))
    for (const path of paths) stream.send(encodeHeader(path))
    await stream.close()
  }
  const refusal = encodeHeader({ version: 1, status: 'incomplete' })
  const two = [pathAt(0), { ...pathAt(1), references: [0] }] as const

  it.each<[string, RegExp, (stream: Stream) => void | Promise<void>]>([
    ['another root', /found .* as the last path/, tell(pathAt(0))],
    ['a reference to a later path', /number 0, refers to 1/, tell({ ...pathAt(0), references: [1] }, two[1])],
    ['references that do not ascend', /refers to 0/, tell(two[0], { ...two[1], references: [1, 0] })],
    ['a reference twice', /refers to 0/, tell(two[0], { ...two[1], references: [0, 0] })],
    ['a path twice', /twice/, tell(two[0], { ...two[1], storePath: two[0].storePath })],
    ['a path that nothing needs', /found 1 paths that nothing refers to/, tell(two[0], { ...two[1], references: [] })],
    ['a path that only itself refers to', /found 1 paths that nothing refers to/, tell({ ...two[0], references: [0] }, { ...two[1], references: [] })],
    ['more bytes than there may be', /bytes of paths, needed at most 33554432/, async stream => {
      stream.send(ok(MAX_CLOSURE_PATHS))
      const signatures = Array.from({ length: 50 }, () => 's'.repeat(1000))
      for (let number = 0; stream.status === 'open'; number++) {
        const references = number === 0 ? [] : [number - 1]
        if (!stream.send(encodeHeader({ ...pathAt(number), references, signatures }))) await new Promise(resolve => { for (const event of ['drain', 'close'] as const) stream.addEventListener(event, resolve, { once: true }) })
      }
    }],
    ['bytes after a refusal', /bytes after the last one/, async stream => { stream.send(refusal); stream.send(Uint8Array.of(0)); await stream.close() }],
    ['a path that is none', /not a store path/, tell({ ...two[0], storePath: '/nix/store/../etc' }, two[1])],
    ['an unknown field', /Unrecognized key/, tell({ ...two[0], more: 1 }, two[1])],
    ['fewer paths than it says', /found the end of the stream/, async stream => { stream.send(ok(2)); stream.send(encodeHeader(two[0])); await stream.close() }],
    ['more paths than it says', /bytes after the last one/, async stream => { stream.send(ok(1)); stream.send(encodeHeader(two[0])); stream.send(encodeHeader(two[1])); await stream.close() }],
    ['more paths than there may be', /at count/, stream => { stream.send(ok(MAX_CLOSURE_PATHS + 1)) }],
    ['no path at all', /at count/, stream => { stream.send(ok(0)) }],
    ['a path over the limit', /more than 3 bytes|needed 2 to/, stream => { stream.send(ok(1)); stream.send(Uint8Array.of(0xff, 0xff, 0xff, 0x7f)) }],
    ['silence', /no whole path for 60 ms/, stream => { stream.send(ok(2)) }],
    ['a reset', /reset/, stream => { stream.abort(new Error('no')) }],
  ])('%s', async (_what, text, server) => {
    const { opener, streams } = connectTo(server)
    await expectFailure(fetchClosurePaths(opener, 'peer', someHash(1), QUICK), 'peer-failed', text)
    await expectClosed(...streams.map(({ near }) => near))
  })
})

describe('a peer that sends NARs wrongly gives peer-failed', () => {
  const ok = encodeHeader({ version: 1, status: 'ok' })
  const wanted = [pathAt(0), pathAt(1)]

  it.each<[string, RegExp, (stream: Stream) => void | Promise<void>]>([
    ['a NAR of another size', /found a NAR of 99 bytes, needed 100/, stream => { stream.send(lengthOf(99)) }],
    ['a NAR over the limit', /needed at most/, stream => { stream.send(lengthOf(MAX_PACKED_NAR_BYTES + 1)) }],
    ['a length beyond all numbers', /18446744073709551615/, stream => { stream.send(lengthOf(2n ** 64n - 1n)) }],
    ['an end in a NAR', /end of the stream after 10 bytes/, async stream => { stream.send(lengthOf(100)); stream.send(rangeOf(0, 10)); await stream.close() }],
    ['an end before the last NAR', /end of the stream after 0 bytes/, async stream => { stream.send(lengthOf(0)); await stream.close() }],
    ['bytes after the last NAR', /bytes after the last one/, async stream => { stream.send(lengthOf(0)); stream.send(lengthOf(0)); stream.send(lengthOf(0)); await stream.close() }],
    ['silence in a NAR', /no byte of the body for 60 ms/, stream => { stream.send(lengthOf(100)); stream.send(rangeOf(0, 10)) }],
    ['silence between NARs', /for 60 ms/, stream => { stream.send(lengthOf(0)) }],
  ])('%s', async (_what, text, server) => {
    const { opener, streams } = connectTo(async stream => {
      stream.send(ok)
      await server(stream)
    })
    const answer = await fetchNars(opener, 'peer', wanted, QUICK)
    if (answer.status !== 'ok') throw new Error(answer.status)
    await expectFailure(collect(answer.nars), 'peer-failed', text)
    await expectClosed(...streams.map(({ near }) => near))
  })
})

it('a peer that goes on after it has refused NARs gives peer-failed', async () => {
  const { opener, streams } = connectTo(async stream => {
    stream.send(encodeHeader({ version: 1, status: 'refused' }))
    stream.send(Uint8Array.of(0))
    await stream.close()
  })
  await expectFailure(fetchNars(opener, 'peer', [pathAt(0)], QUICK), 'peer-failed', /bytes after the last one/)
  await expectClosed(...streams.map(({ near }) => near))
})

describe('an asker', () => {
  it.each<[string, object]>([
    ['that asks for too many NARs', { version: 1, want: 'nars', narHashes: Array.from({ length: MAX_PACKED_NARS + 1 }, (_, n) => someHash(n).toNix32()) }],
    ['that asks for no NAR', { version: 1, want: 'nars', narHashes: [] }],
    ['that asks for something else', { version: 1, want: 'all', narHash: someHash(1).toSri() }],
    ['of another version', { version: 2, want: 'paths', narHash: someHash(1).toSri() }],
  ])('%s is cut off', async (_what, request) => {
    const { near, far } = await streamPair()
    const serving = handlerOf()(far)
    near.send(encodeHeader(request))
    await near.close()
    await serving
    expect(far.status).toBe('aborted')
  })

  it('that stalls is cut off, and holds no more than the stream\'s window', async () => {
    const { near, far } = await streamPair()
    let pulled = 0
    const source = {
      read: async function* () {
        for (;;) {
          pulled += 60_000
          yield await Promise.resolve(new Uint8Array(60_000))
        }
      },
    }
    const closures = { closure: () => Promise.resolve('not-found' as const), narSize: () => 60_000_000 }
    const serving = handlerOf({ source, closures })(far)
    near.pause()
    near.send(encodeHeader({ version: 1, want: 'nars', narHashes: [someHash(0).toSri()] }))
    await near.close()
    await serving
    expect(far.status).toBe('aborted')
    expect(pulled).toBeLessThan(20_000_000)
  })

  it('that goes ends what is being read for it', async () => {
    const { near, far } = await streamPair()
    const reading = Promise.withResolvers<AbortSignal>()
    const source = {
      read: async function* (_narHash: unknown, _offset: number, _length: number, { signal }: { signal: AbortSignal }): AsyncGenerator<Uint8Array> {
        reading.resolve(signal)
        await new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(new Error('told to end')) }) })
        yield new Uint8Array(1)
      },
    }
    const serving = handlerOf({ source })(far)
    near.send(encodeHeader({ version: 1, want: 'nars', narHashes: [someHash(0).toSri()] }))
    await near.close()
    await reading.promise
    near.abort(new Error('gone'))
    await serving
    expect((await reading.promise).aborted).toBe(true)
  })

  it('fits the longest request into a header', () => {
    const request = { version: 1, want: 'nars', narHashes: Array.from({ length: MAX_PACKED_NARS }, (_, n) => someHash(n).toSri()) }
    expect(encodeHeader(request).length).toBeLessThan(65_536)
  })
})
