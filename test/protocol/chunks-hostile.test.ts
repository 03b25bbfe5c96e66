import type { Stream } from '@libp2p/interface'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import type { ChunkRun } from '../../src/image/chunk-set.ts'
import { MAX_SWARM_CHUNK_MESSAGE_BYTES, MAX_SWARM_MESSAGE_BYTES, MAX_SWARM_WANTS } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { openSession, type SessionMessage } from '../../src/p2p/chunks/client.ts'
import { chunksHandler } from '../../src/p2p/chunks/handler.ts'
import { encodeAsker, encodeChunksHead, encodeHolder, encodePeers, TYPE } from '../../src/p2p/chunks/messages.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { failureOf } from '../helpers/failure.ts'
import { MADE_UP_DIGEST, MADE_UP_HASH, madeUpChunks, MadeUpHolding } from '../helpers/made-up-chunks.ts'
import { connectTo, served, streamPair } from '../helpers/stream-pair.ts'

const image = madeUpChunks(40)
const question = { narHash: MADE_UP_HASH, manifestDigest: MADE_UP_DIGEST, chunks: image.chunks }
const welcome = encodeHeader({ version: 1, status: 'ok' })
const have = encodeHolder({ kind: 'have', runs: [{ first: 0, count: 40 }] })
const done = encodeHolder({ kind: 'end', id: 1, status: 'done' })

function chunkMessage(id: number, run: ChunkRun, bytes = bytesOf(run)): Uint8Array {
  return Buffer.concat([encodeChunksHead(id, run, bytes.length), bytes])
}

function bytesOf({ first, count }: ChunkRun): Uint8Array {
  return image.bytes.subarray(image.chunks.offset(first), image.chunks.offset(first + count))
}

function raw(type: number, ...body: number[]): Uint8Array {
  return Uint8Array.from([type, body.length, 0, 0, 0, ...body])
}

/** Asks a server that says `parts` whatever it is asked, for chunks 2 to 5 and for a choice of 10 to 19. */
async function hear(parts: readonly Uint8Array[], end: 'close' | 'abort' | 'silence' = 'close'): Promise<SessionMessage[]> {
  const { opener } = connectTo(async stream => {
    for (const part of parts) if (stream.status === 'open') stream.send(Uint8Array.from(part))
    if (end === 'close') await stream.close().catch(() => undefined)
    if (end === 'abort') stream.abort(new Error('gone'))
  })
  const answer = await openSession(opener, 'holder', question, { stallMs: 300, headerTimeoutMs: 300 })
  if (answer.status !== 'ok') throw new Error(answer.status)
  const heard: SessionMessage[] = []
  answer.session.want(1, [{ first: 2, count: 4 }], undefined)
  answer.session.want(2, [{ first: 10, count: 10 }], 20_000)
  for await (const message of answer.session.messages()) heard.push(message)
  return heard
}

describe('a holder that', () => {
  const cases: readonly (readonly [string, readonly Uint8Array[], RegExp])[] = [
    ['sends chunks that nobody asked for', [welcome, have, chunkMessage(1, { first: 6, count: 1 })], /found chunk 6 for want 1, needed chunks that were asked for/],
    ['sends a chunk twice', [welcome, chunkMessage(1, { first: 2, count: 1 }), chunkMessage(1, { first: 2, count: 1 })], /found chunk 2 for want 1/],
    ['sends chunks for a want that is not open', [welcome, chunkMessage(7, { first: 2, count: 1 })], /found chunks for want 7/],
    ['sends chunks before it has chosen', [welcome, chunkMessage(2, { first: 10, count: 1 })], /found chunks for want 2/],
    ['sends chunks that do not exist', [welcome, chunkMessage(1, { first: 39, count: 2 }, Buffer.alloc(10))], /found chunks 39 to 41/],
    ['sends no chunk at all', [welcome, chunkMessage(1, { first: 2, count: 0 }, Buffer.alloc(0))], /found chunks 2 to 2/],
    ['sends fewer bytes than the chunks have', [welcome, chunkMessage(1, { first: 2, count: 1 }, Buffer.alloc(10))], /found 10 bytes, needed \d+/],
    ['sends more bytes than the chunks have', [welcome, chunkMessage(1, { first: 2, count: 1 }, Buffer.alloc(100_000))], /found 100000 bytes, needed \d+/],
    ['sends other bytes than the chunk has', [welcome, chunkMessage(1, { first: 2, count: 1 }, Buffer.alloc(image.chunks.length(2)))], /found bytes of another hash/],
    ['says that a message is huge', [welcome, Uint8Array.from([TYPE.have, 1, 0, 1, 0])], new RegExp(`found one of 65537 bytes, needed at most ${MAX_SWARM_MESSAGE_BYTES}`)],
    ['says that a message of chunks is huge', [welcome, Uint8Array.from([TYPE.chunks, 0, 0, 5, 0])], new RegExp(`needed at most ${MAX_SWARM_CHUNK_MESSAGE_BYTES + 21}`)],
    ['announces a chunk again', [welcome, have, encodeHolder({ kind: 'have', runs: [{ first: 3, count: 1 }] })], /found chunk 3 announced again/],
    ['announces nothing', [welcome, raw(TYPE.have)], /found an announcement of nothing/],
    ['announces chunks that do not exist', [welcome, raw(TYPE.have, 39, 1)], /found chunk 40, needed chunks below 40/],
    ['announces more than there is', [welcome, raw(TYPE.have, 0, 40)], /found chunk 40/],
    ['announces runs that touch', [welcome, raw(TYPE.have, 0, 1, 0, 1)], /found two runs that touch/],
    ['sends half a number', [welcome, raw(TYPE.have, 0x80)], /found the end, needed a number/],
    ['sends a number in a longer form', [welcome, raw(TYPE.have, 0x80, 0)], /needless bytes/],
    ['sends half a run', [welcome, raw(TYPE.have, 1)], /found the end, needed a number/],
    ['chooses what was not named', [welcome, encodeHolder({ kind: 'chose', id: 2, runs: [{ first: 9, count: 1 }] })], /found chunk 9 chosen/],
    ['chooses far more than was asked for', [welcome, encodeHolder({ kind: 'chose', id: 2, runs: [{ first: 10, count: 10 }] })], /bytes chosen for want 2/],
    ['chooses nothing', [welcome, encodeHolder({ kind: 'chose', id: 2, runs: [] })], /found 0 bytes chosen/],
    ['chooses where there is no choice', [welcome, encodeHolder({ kind: 'chose', id: 1, runs: [{ first: 2, count: 1 }] })], /found a choice for want 1/],
    ['ends a want that is not open', [welcome, encodeHolder({ kind: 'end', id: 9, status: 'busy' })], /found the end of want 9/],
    ['says done and owes chunks', [welcome, chunkMessage(1, { first: 2, count: 3 }), done], /found want 1 done without 1 of its chunks/],
    ['ends a want in no known way', [welcome, raw(TYPE.end, 1, 9)], /found the number 9, needed at most 2/],
    ['says more than ready', [welcome, raw(TYPE.ready, 1)], /found bytes after the last number/],
    ['speaks as an asker', [welcome, encodeAsker({ kind: 'cancel', id: 1, runs: [{ first: 2, count: 1 }] })], /found a message of type 2/],
    ['names a peer again', [welcome, encodePeers(['a']), encodePeers(['a'])], /found a peer named again/],
    ['names no peers', [welcome, encodePeers([])], /found a list of no peers/],
    ['names something else', [welcome, Uint8Array.from([TYPE.peers, 2, 0, 0, 0, 0x7b, 0x7d])], /found something else than peer ids/],
    ['names too many peers', [welcome, ...Array.from({ length: 3 }, (_, part) => encodePeers(Array.from({ length: 100 }, (__, index) => `${part} ${index}`)))], /found more than 256 peers named/],
    ['ends with debts', [welcome, have], /found the end of the stream, needed what was asked for/],
    ['sends half a head', [welcome, Uint8Array.from([TYPE.have, 1])], /found the end of the stream after 1 bytes, needed 4/],
    ['sends a head and no body', [welcome, Uint8Array.from([TYPE.have, 2, 0, 0, 0])], /found the end of the stream after 0 bytes, needed 2/],
    ['sends half a chunk', [welcome, chunkMessage(1, { first: 2, count: 1 }).subarray(0, 500)], /found the end of the stream after \d+ bytes of one/],
    ['welcomes in another version', [encodeHeader({ version: 2, status: 'ok' })], /found at version/],
    ['says more than its refusal', [encodeHeader({ version: 1, status: 'not-found' }), have], /found bytes after the last one/],
  ]

  it.each(cases)('%s is left', async (_, parts, message) => {
    const failure = await failureOf(hear(parts))
    expect(failure).toMatchObject({ code: 'peer-failed', message: expect.stringMatching(message) as unknown })
  })

  it('lies is told apart, after what was right before', async () => {
    const run = { first: 2, count: 3 }
    const bytes = Buffer.from(bytesOf(run))
    bytes[image.chunks.length(2) + 7] = (bytes[image.chunks.length(2) + 7] ?? 0) ^ 1
    const heard: SessionMessage[] = []
    const { opener } = connectTo(stream => { for (const part of [welcome, chunkMessage(1, run, bytes)]) stream.send(Uint8Array.from(part)) })
    const answer = await openSession(opener, 'holder', question)
    if (answer.status !== 'ok') throw new Error(answer.status)
    answer.session.want(1, [{ first: 2, count: 4 }], undefined)
    const reading = (async () => { for await (const message of answer.session.messages()) heard.push(message) })()
    expect(await failureOf(reading)).toMatchObject({ code: 'peer-failed' })
    expect(heard.map(message => message.kind === 'chunks' ? message.run : message)).toEqual([{ first: 2, count: 1 }, { kind: 'lie', id: 1, chunk: 3 }])
  })

  it('is silent in the middle of a message is left', async () => {
    expect(await failureOf(hear([welcome, chunkMessage(1, { first: 2, count: 1 }).subarray(0, 500)], 'silence'))).toMatchObject({ code: 'peer-failed', message: expect.stringMatching(/found no byte of a chunk for 300 ms/) as unknown })
    expect(await failureOf(hear([], 'silence'))).toMatchObject({ code: 'peer-failed', message: expect.stringMatching(/found no whole reply/) as unknown })
  })

  it('disappears at any step is noticed', async () => {
    const all = Buffer.concat([welcome, have, encodePeers(['a']), chunkMessage(1, { first: 2, count: 4 }), done, encodeHolder({ kind: 'chose', id: 2, runs: [{ first: 10, count: 1 }] }), chunkMessage(2, { first: 10, count: 1 })])
    await fc.assert(fc.asyncProperty(fc.nat(all.length), fc.constantFrom('close' as const, 'abort' as const), async (length, end) => {
      expect(await failureOf(hear([all.subarray(0, length)], end))).toMatchObject({ code: 'peer-failed' })
    }), { numRuns: 30 })
    expect((await hear([all, encodeHolder({ kind: 'end', id: 2, status: 'done' })])).map(({ kind }) => kind)).toEqual(['have', 'peers', 'chunks', 'end', 'chose', 'chunks', 'end'])
  })

  it('sends rubbish is left', async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async bytes => {
      expect(await failureOf(hear([welcome, bytes]))).toMatchObject({ code: 'peer-failed' })
    }), { numRuns: 50 })
  })
})

describe('an asker that', () => {
  const hello = encodeHeader({ version: 1, narHash: MADE_UP_HASH.toSri(), manifestDigest: MADE_UP_DIGEST })
  const cases: readonly (readonly [string, readonly Uint8Array[]])[] = [
    ['says hello in another version', [encodeHeader({ version: 2, narHash: MADE_UP_HASH.toSri(), manifestDigest: MADE_UP_DIGEST })]],
    ['wants chunks that were not announced', [hello, encodeAsker({ kind: 'want', id: 1, runs: [{ first: 5, count: 1 }], choice: undefined })]],
    ['wants chunks that do not exist', [hello, raw(TYPE.want, 1, 0, 39, 1)]],
    ['wants nothing', [hello, raw(TYPE.want, 1, 0)]],
    ['uses a number twice', [hello, want(1), want(1)]],
    ['wants too much at once', [hello, ...Array.from({ length: 4 * MAX_SWARM_WANTS }, (_, id) => want(id + 1))]],
    ['speaks as a holder', [hello, have]],
    ['says that a message is huge', [hello, Uint8Array.from([TYPE.want, 0, 0, 0, 1])]],
    ['sends rubbish', [hello, Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])]],
  ]

  function want(id: number): Uint8Array {
    return encodeAsker({ kind: 'want', id, runs: [{ first: 6, count: 1 }], choice: undefined })
  }

  function serveHalf(): { holding: MadeUpHolding, server: (stream: Stream) => Promise<void>, turns: Turns } {
    const holding = new MadeUpHolding(image)
    holding.have.delete(5)
    holding.before = () => new Promise(resolve => setTimeout(resolve, 20))
    const turns = new Turns({ places: 1, quantumBytes: 1e9, claimMs: 1000 })
    const handler = chunksHandler({ source: holding, turns, logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => ({ received: 0, sent: 0 }) }, { stallMs: 300, headerTimeoutMs: 300 })
    return { holding, turns, server: served(handler) }
  }

  it.each(cases)('%s is cut off, and nothing of it is kept', async (_, parts) => {
    const { holding, server, turns } = serveHalf()
    const { near, far } = await streamPair()
    const serving = server(far)
    for (const part of parts) near.send(Uint8Array.from(part))
    await serving
    await vi.waitFor(() => { expect(near.status).toBe('reset') })
    expect(holding.listeners).toBe(0)
    expect(turns.take({ onTurn: () => undefined })).toBe(true)
  })

  it('disappears at any step leaves nothing behind', async () => {
    const all = Buffer.concat([hello, want(1), want(2), encodeAsker({ kind: 'cancel', id: 1, runs: [{ first: 6, count: 1 }] })])
    await fc.assert(fc.asyncProperty(fc.nat(all.length), fc.constantFrom('close' as const, 'abort' as const), async (length, end) => {
      const { holding, server, turns } = serveHalf()
      const { near, far } = await streamPair()
      const serving = server(far)
      near.send(Uint8Array.from(all.subarray(0, length)))
      if (end === 'close') await near.close()
      else near.abort(new Error('gone'))
      await serving
      expect(holding.listeners).toBe(0)
      expect(turns.take({ onTurn: () => undefined })).toBe(true)
    }), { numRuns: 30 })
  })
})
