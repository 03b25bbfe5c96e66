import type { Stream } from '@libp2p/interface'
import { describe, expect, it, vi } from 'vitest'
import { ChunkSet, chunksOf } from '../../src/image/chunk-set.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { MAX_SWARM_SESSIONS } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { type ChunkSession, openSession, type SessionMessage } from '../../src/p2p/chunks/client.ts'
import { chunksHandler } from '../../src/p2p/chunks/handler.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import type { StreamHandler } from '../../src/p2p/protocol.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { failureOf } from '../helpers/failure.ts'
import { MADE_UP_DIGEST, MADE_UP_HASH, madeUpChunks, MadeUpHolding } from '../helpers/made-up-chunks.ts'
import { connectTo, served } from '../helpers/stream-pair.ts'

const MIB = 1024 * 1024
const image = madeUpChunks(40)
const question = { narHash: MADE_UP_HASH, manifestDigest: MADE_UP_DIGEST, chunks: image.chunks }
const ALL = { first: 0, count: image.chunks.count }

interface Holder {
  readonly holding: MadeUpHolding
  readonly handler: StreamHandler
  readonly books: { received: number, sent: number }
  readonly turns: Turns
}

function holder({ holding = new MadeUpHolding(image), places = 4, quantumBytes = 64 * MIB, stallMs }: { holding?: MadeUpHolding, places?: number, quantumBytes?: number, stallMs?: number } = {}): Holder {
  const books = { received: 0, sent: 0 }
  const turns = new Turns({ places, quantumBytes, claimMs: 1000 })
  const handler = chunksHandler({ source: holding, turns, logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => books }, { stallMs })
  return { holding, handler, books, turns }
}

interface Asker {
  readonly session: ChunkSession
  readonly messages: AsyncGenerator<SessionMessage>
  readonly streams: readonly Stream[]
  readonly traffic: { readonly received: number }
}

async function ask({ handler }: Pick<Holder, 'handler'>, peerId = 'asker', options = {}): Promise<Asker> {
  const { opener, streams, traffic } = connectTo(served(handler, peerId))
  const answer = await openSession(opener, 'holder', question, options)
  if (answer.status !== 'ok') throw new Error(`answered ${answer.status}`)
  return { session: answer.session, messages: answer.session.messages(), streams: streams.flatMap(({ near, far }) => [near, far]), traffic }
}

async function nextMessage({ messages }: Asker): Promise<SessionMessage> {
  const step = await messages.next()
  if (step.done === true) throw new Error('the session has ended')
  return step.value
}

async function until<Kind extends SessionMessage['kind']>(asker: Asker, kind: Kind): Promise<Extract<SessionMessage, { kind: Kind }>> {
  for (;;) {
    const message = await nextMessage(asker)
    if (message.kind === kind) return message as Extract<SessionMessage, { kind: Kind }>
  }
}

/** The chunks that come until a number of wants has ended. */
async function receive(asker: Asker, ends = 1): Promise<{ chunks: number[], ends: Extract<SessionMessage, { kind: 'end' }>[] }> {
  const chunks: number[] = []
  const ended: Extract<SessionMessage, { kind: 'end' }>[] = []
  while (ended.length < ends) {
    const message = await nextMessage(asker)
    if (message.kind === 'end') ended.push(message)
    if (message.kind !== 'chunks') continue
    const [start, end] = [image.chunks.offset(message.run.first), image.chunks.offset(message.run.first + message.run.count)]
    expect(Buffer.compare(message.bytes, image.bytes.subarray(start, end))).toBe(0)
    chunks.push(...chunksOf([message.run]))
  }
  return { chunks, ends: ended }
}

async function expectClosed(streams: readonly Stream[]): Promise<void> {
  for (const stream of streams) await vi.waitFor(() => { expect(['closed', 'reset', 'aborted']).toContain(stream.status) })
}

describe('both ends', () => {
  it('move every chunk that is asked for, in several wants, and keep the books', async () => {
    const host = holder()
    const asker = await ask(host)
    expect(await until(asker, 'have')).toEqual({ kind: 'have', runs: [ALL] })
    asker.session.want(1, [{ first: 0, count: 10 }, { first: 30, count: 10 }], undefined)
    asker.session.want(2, [{ first: 10, count: 20 }], undefined)
    const { chunks, ends } = await receive(asker, 2)
    expect(chunks.sort((a, b) => a - b)).toEqual([...chunksOf([ALL])])
    expect(ends.map(({ id, status }) => [id, status])).toEqual([[1, 'done'], [2, 'done']])
    expect(host.books.sent).toBe(image.bytes.length)
    expect(asker.traffic.received).toBe(image.bytes.length)
    expect(host.holding.askers).toEqual(['asker'])
    await asker.messages.return(undefined)
    await expectClosed(asker.streams)
    await vi.waitFor(() => { expect(host.holding.listeners).toBe(0) })
  })

  it('join what is small: with the chunks it goes before, or with each other', async () => {
    const host = holder()
    const asker = await ask(host)
    await until(asker, 'have')
    const [, far] = asker.streams
    const sent = vi.spyOn(far ?? expect.fail('no stream'), 'send')
    for (let id = 1; id <= 10; id++) asker.session.want(id, [{ first: id - 1, count: 1 }], 1)
    await receive(asker, 10)
    // Of each want: which chunk was chosen, the head, and the end of the one before, in one; the chunk. At last the end of the last.
    expect(sent.mock.calls.length).toBeLessThanOrEqual(25)
    await asker.messages.return(undefined)
  })

  it('answer not-found for an image or manifest that is not here', async () => {
    const { opener, streams } = connectTo(served(holder().handler))
    const other = NarHash.fromBytes(rangeOf(1, 32))
    expect(await openSession(opener, 'holder', { ...question, narHash: other })).toEqual({ status: 'not-found', peers: [] })
    expect(await openSession(opener, 'holder', { ...question, manifestDigest: 'cd'.repeat(32) })).toEqual({ status: 'not-found', peers: [] })
    await expectClosed(streams.flatMap(({ near, far }) => [near, far]))
  })

  it('tell of chunks as they are proven, and of each other', async () => {
    const host = holder({ holding: new MadeUpHolding(image, new ChunkSet(image.chunks.count)) })
    const first = await ask(host, 'first')
    const second = await ask(host, 'second')
    expect(await until(first, 'peers')).toEqual({ kind: 'peers', peerIds: ['second'] })
    expect(await until(second, 'peers')).toEqual({ kind: 'peers', peerIds: ['first'] })
    host.holding.add({ first: 3, count: 2 })
    expect(await until(first, 'have')).toEqual({ kind: 'have', runs: [{ first: 3, count: 2 }] })
    first.session.want(1, [{ first: 4, count: 1 }], undefined)
    expect((await receive(first)).chunks).toEqual([4])
    host.holding.add({ first: 0, count: 1 })
    expect(await until(first, 'have')).toEqual({ kind: 'have', runs: [{ first: 0, count: 1 }] })
  })

  it('tell of chunks that are proven one soon after the other in few messages', async () => {
    const host = holder({ holding: new MadeUpHolding(image, new ChunkSet(image.chunks.count)) })
    const asker = await ask(host)
    const told: number[] = []
    const hear = async (): Promise<void> => { told.push(...chunksOf((await until(asker, 'have')).runs)) }
    host.holding.add({ first: 0, count: 1 })
    await hear()
    expect(told).toEqual([0])
    // Each in a turn of its own, in which a message could leave.
    for (let chunk = 1; chunk < 9; chunk++) {
      host.holding.add({ first: chunk, count: 1 })
      await new Promise(resolve => setImmediate(resolve))
    }
    await hear()
    expect(told.length).toBeGreaterThan(4)
    while (told.length < 9) await hear()
    expect(told).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
  })

  it('answer busy with the names of the others where there are too many', async () => {
    const host = holder()
    for (let index = 0; index < MAX_SWARM_SESSIONS; index++) await ask(host, `peer ${index}`)
    const { opener } = connectTo(served(host.handler, 'one more'))
    const answer = await openSession(opener, 'holder', question)
    expect(answer.status).toBe('busy')
    expect(answer.status === 'ok' ? [] : answer.peers).toHaveLength(MAX_SWARM_SESSIONS)
  })

  it('give different chunks to askers that leave the choice', async () => {
    const host = holder()
    const askers = [await ask(host, 'first'), await ask(host, 'second')] as const
    const given: number[] = []
    for (const asker of askers) {
      asker.session.want(1, [ALL], image.bytes.length / 2)
      const chose = await until(asker, 'chose')
      const { chunks } = await receive(asker)
      expect(chunks).toEqual([...chunksOf(chose.runs)])
      given.push(...chunks)
    }
    expect(new Set(given).size).toBe(given.length)
    expect(given.length).toBeGreaterThan(35)
  })

  it('send no more of what is cancelled, and tell that a want is over', async () => {
    const host = holder()
    let reached: (() => void) | undefined
    const atFirst = new Promise<void>(resolve => { reached = resolve })
    let goOn: (() => void) | undefined
    const gate = new Promise<void>(resolve => { goOn = resolve })
    host.holding.before = async () => {
      reached?.()
      await gate
    }
    const asker = await ask(host)
    asker.session.want(1, [ALL], undefined)
    await atFirst
    asker.session.cancel(1, [{ first: 20, count: 20 }])
    asker.session.want(2, [{ first: 39, count: 1 }], undefined)
    await new Promise(resolve => setTimeout(resolve, 20))
    goOn?.()
    const { chunks, ends } = await receive(asker, 2)
    expect(chunks).toEqual([...chunksOf([{ first: 0, count: 20 }]), 39])
    expect(ends.map(({ status }) => status)).toEqual(['done', 'done'])
  })

  it('take turns where there are more askers than places', async () => {
    const host = holder({ places: 1, quantumBytes: 100_000 })
    const [first, second] = [await ask(host, 'first'), await ask(host, 'second')]
    host.holding.before = () => new Promise(resolve => setTimeout(resolve, 5))
    first.session.want(1, [ALL], undefined)
    await until(first, 'chunks')
    second.session.want(1, [ALL], undefined)
    expect((await receive(second)).ends[0]?.status).toBe('busy')
    expect((await receive(first)).ends[0]?.status).toBe('busy')
    expect((await until(second, 'ready')).kind).toBe('ready')
    second.session.want(2, [{ first: 0, count: 3 }], undefined)
    expect((await receive(second)).ends[0]?.status).toBe('done')
    await second.messages.return(undefined)
    expect((await until(first, 'ready')).kind).toBe('ready')
  })

  it('end the session when the image is withdrawn', async () => {
    const host = holder()
    const asker = await ask(host)
    await until(asker, 'have')
    host.holding.withdraw()
    expect((await asker.messages.next()).done).toBe(true)
    await expectClosed(asker.streams)
  })
})

describe('a disk that is damaged', () => {
  it('is noticed by the one who has it, and nothing wrong leaves', async () => {
    const host = holder()
    const at = image.chunks.offset(5)
    host.holding.bytes[at] = (host.holding.bytes[at] ?? 0) ^ 1
    const asker = await ask(host)
    asker.session.want(1, [{ first: 5, count: 1 }], undefined)
    expect(await receive(asker)).toEqual({ chunks: [], ends: [{ kind: 'end', id: 1, status: 'not-found' }] })
    expect(host.holding.damagedChunks).toEqual([5])
    host.holding.before = () => Promise.reject(new Error('cannot read'))
    asker.session.want(2, [{ first: 6, count: 1 }], undefined)
    expect((await receive(asker)).ends[0]?.status).toBe('not-found')
    expect(host.books.sent).toBe(0)
  })
})

describe('an asker that stalls', () => {
  it('stops the reading after a window and the buffers, and is given up', async () => {
    const large = madeUpChunks(300)
    const host = holder({ holding: new MadeUpHolding(large), stallMs: 300 })
    const { opener, streams } = connectTo(served(host.handler))
    const answer = await openSession(opener, 'holder', { ...question, chunks: large.chunks })
    if (answer.status !== 'ok') throw new Error(answer.status)
    answer.session.want(1, [{ first: 0, count: 300 }], undefined)
    await vi.waitFor(() => { expect(streams[0]?.far.status).not.toBe('open') }, { timeout: 5000 })
    const read = host.holding.readRuns.reduce((sum, { count }) => sum + count, 0)
    expect(read * 19_000).toBeLessThan(4 * MIB)
    await failureOf((async () => { for await (const message of answer.session.messages()) expect(message.kind).not.toBe('lie') })())
  })
})
