import { expect, test, vi } from 'vitest'
import { isNarvikError } from '../../src/errors.ts'
import { type ChunkSession, openSession } from '../../src/p2p/chunks/client.ts'
import { fetchClosurePaths, fetchNars } from '../../src/p2p/closure/client.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { NAR_PROTOCOL } from '../../src/p2p/nar/messages.ts'
import type { P2pNode } from '../../src/p2p/node.ts'
import type { ClosurePath } from '../../src/p2p/protocol.ts'
import { someStorePath } from '../helpers/images.ts'
import { MADE_UP_DIGEST, MADE_UP_HASH, MadeUpHolding, madeUpChunks } from '../helpers/made-up-chunks.ts'
import { HASH, PATIENCE_MS, startFleet } from '../helpers/nodes.ts'

/** What all nodes together counted, by protocol. */
function sums(nodes: readonly P2pNode[]): Record<string, { sent: number, received: number, sentBroken: number, receivedBroken: number }> {
  const all: ReturnType<typeof sums> = {}
  for (const node of nodes) {
    for (const [protocol, totals] of node.traffic) {
      const sum = all[protocol] ??= { sent: 0, received: 0, sentBroken: 0, receivedBroken: 0 }
      for (const key of ['sent', 'received', 'sentBroken', 'receivedBroken'] as const) sum[key] += totals[key]
    }
  }
  return all
}

async function untilQuiet(nodes: readonly P2pNode[]): Promise<void> {
  await vi.waitFor(() => { expect(nodes.flatMap(node => node.peers()).reduce((sum, { streams }) => sum + streams, 0)).toBe(0) }, { timeout: PATIENCE_MS })
}

/** Takes a range from a peer; of one that is left early, only so many bytes. */
async function take(node: P2pNode, peerId: string, length: number, most = Infinity): Promise<number> {
  const answer = await fetchNar(node, peerId, HASH, 0, length)
  if (answer.status !== 'ok') return 0
  let taken = 0
  for await (const part of answer.body) {
    taken += part.byteLength
    if (taken >= most) break
  }
  return taken
}

test('over six hosts, what all sent is what all received, and what broke off is told apart', async () => {
  const nodes = await startFleet(6)
  const pairs = nodes.flatMap(a => nodes.filter(b => b !== a).map(b => [a, b] as const))
  const whole = await Promise.all(pairs.map(async ([a, b], index) => {
    await fetchMetadata(a, b.peerId, HASH)
    return take(a, b.peerId, 10_000 + 977 * index)
  }))
  await untilQuiet(nodes)
  const orderly = sums(nodes)
  for (const [protocol, { sent, received, sentBroken, receivedBroken }] of Object.entries(orderly)) {
    expect({ protocol, sent, sentBroken, receivedBroken }).toEqual({ protocol, sent: received, sentBroken: 0, receivedBroken: 0 })
    expect(sent).toBeGreaterThan(0)
  }
  const wanted = whole.reduce((sum, bytes) => sum + bytes, 0)
  expect(orderly['/narvik/nar/1.0.0']?.received).toBe(wanted)

  const [first, second, third] = nodes
  if (first === undefined || second === undefined || third === undefined) throw new Error('too few')
  // One reader leaves early, others read on beside it.
  const [early, late] = await Promise.all([take(first, second.peerId, 1_000_000, 100_000), take(third, second.peerId, 1_000_000)])
  await untilQuiet(nodes)
  const { sent = 0, received = 0, sentBroken = 0, receivedBroken = 0 } = sums(nodes)['/narvik/nar/1.0.0'] ?? {}
  expect(receivedBroken).toBe(early)
  expect(received).toBe(wanted + early + late)
  // The books of the orderly exchanges still balance; what is lost is what the broken one was sent and nobody took.
  expect(sent - sentBroken).toBe(received - receivedBroken)
  expect(sent - received).toBe(sentBroken - receivedBroken)
  expect(sentBroken).toBeGreaterThanOrEqual(receivedBroken)
  // By peer they are the same sums.
  expect(nodes.flatMap(a => nodes.map(b => a.trafficOf(b.peerId).sent)).reduce((sum, bytes) => sum + bytes, 0)).toBe(Object.values(sums(nodes)).reduce((sum, totals) => sum + totals.sent, 0))
})

/** Takes a range from a peer until it breaks off. */
async function takeAsMuch(node: P2pNode, peerId: string, length: number, onBytes: (bytes: number) => void): Promise<void> {
  try {
    const answer = await fetchNar(node, peerId, HASH, 0, length)
    if (answer.status !== 'ok') return
    for await (const part of answer.body) onBytes(part.byteLength)
  } catch (error) {
    if (!isNarvikError(error, 'peer-failed')) throw error
  }
}

test('over six hosts whose connections are cut in the middle of it all, what all sent is what all received and what was lost', async () => {
  const ends: number[] = []
  const nodes = await startFleet(6, {}, { onServed: ({ protocol, sent }) => { if (protocol === NAR_PROTOCOL) ends.push(sent) } })
  const pairs = nodes.flatMap(a => nodes.filter(b => b !== a).map(b => [a, b] as const))
  let taken = 0
  for (const cut of nodes) {
    const before = taken
    let isCut = false
    await Promise.all(pairs.map(([a, b], index) => takeAsMuch(a, b.peerId, 20_000 + 9_973 * index, bytes => {
      taken += bytes
      if (isCut || taken - before < 1_000_000) return
      isCut = true
      cut.reconnect()
    })))
    await untilQuiet(nodes)
  }
  const served = ends.reduce((sum, bytes) => sum + bytes, 0)
  const totals = sums(nodes)[NAR_PROTOCOL]
  // Each end has counted every byte that it had, once, however its exchanges have ended.
  expect(totals).toMatchObject({ received: taken, sent: served })
  const { disagreement, lost, broken } = standing(nodes, NAR_PROTOCOL)
  expect(lost).toBe(served - taken)
  expect(lost).toBeGreaterThan(0)
  // Only the sender can take for ended what was cut: with its last byte on the way.
  expect(disagreement).toBeGreaterThanOrEqual(0)
  expect(lost).toBe(broken[0] - broken[1] + disagreement)

  // What comes in order afterwards loses nothing more.
  let more = 0
  await Promise.all(pairs.map(([a, b]) => takeAsMuch(a, b.peerId, 10_000, bytes => { more += bytes })))
  await untilQuiet(nodes)
  expect(more).toBeGreaterThan(0)
  expect(standing(nodes, NAR_PROTOCOL)).toMatchObject({ disagreement, lost, received: taken + more })
})

const image = madeUpChunks(60)
const ALL = { first: 0, count: image.chunks.count }

interface TakeOptions {
  readonly most?: number
  readonly onBytes?: (taken: number) => void
  /** Called when all has come; where there is one, the asker stays until the holder ends the session. */
  readonly onEnd?: () => void
}

/** What was taken of a session with a peer, who is asked for everything: all of it, or at least so many bytes, and then it is left. */
async function takeChunks(node: P2pNode, peerId: string, { most = Infinity, onBytes = () => undefined, onEnd }: TakeOptions = {}): Promise<number> {
  let taken = 0
  const answer = await openSession(node, peerId, { narHash: MADE_UP_HASH, manifestDigest: MADE_UP_DIGEST, chunks: image.chunks }, { onBytes: bytes => { onBytes(taken += bytes) } })
  if (answer.status !== 'ok') throw new Error(`found ${answer.status}`)
  await readSession(answer.session, () => taken >= most, onEnd)
  return taken
}

async function readSession(session: ChunkSession, isEnough: () => boolean, onEnd?: () => void): Promise<void> {
  for await (const message of session.messages()) {
    if (message.kind === 'have') session.want(1, [ALL], undefined)
    if (message.kind === 'end') onEnd?.()
    if (isEnough() || (message.kind === 'end' && onEnd === undefined)) return
  }
}

/** How the books of one protocol stand: what the ends of the exchanges disagree by, what was sent and received, and what was lost. */
function standing(nodes: readonly P2pNode[], protocol: string): { disagreement: number, received: number, lost: number, broken: readonly [number, number] } {
  const { sent = 0, received = 0, sentBroken = 0, receivedBroken = 0 } = sums(nodes)[protocol] ?? {}
  return { disagreement: sent - sentBroken - (received - receivedBroken), received, lost: sent - received, broken: [sentBroken, receivedBroken] }
}

test('the books of chunks balance over six hosts, also where the one or the other end leaves', async () => {
  const holding = new MadeUpHolding(image)
  const nodes = await startFleet(6, {}, { chunks: holding })
  const pairs = nodes.flatMap(a => nodes.filter(b => b !== a).map(b => [a, b] as const))
  const taken = await Promise.all(pairs.map(([a, b]) => takeChunks(a, b.peerId)))
  await untilQuiet(nodes)
  const whole = taken.reduce((sum, bytes) => sum + bytes, 0)
  expect(whole).toBe(pairs.length * image.bytes.length)
  expect(standing(nodes, '/narvik/chunks/1.0.0')).toMatchObject({ disagreement: 0, received: whole, lost: 0 })

  // The asker leaves while bytes are on their way to it.
  const [first, second, third] = nodes as [P2pNode, P2pNode, P2pNode]
  let sending = second.sending
  const early = await takeChunks(first, second.peerId, { most: 200_000, onBytes: () => { sending = second.sending } })
  expect(sending).toEqual([expect.objectContaining({ peerId: first.peerId, narHash: MADE_UP_HASH })])
  expect(early).toBeLessThan(image.bytes.length)
  await untilQuiet(nodes)
  const left = standing(nodes, '/narvik/chunks/1.0.0')
  expect(left).toMatchObject({ disagreement: 0, received: whole + early })
  expect(left.lost).toBe(left.broken[0] - left.broken[1])
  expect(nodes.flatMap(node => node.sending)).toEqual([])

  // The asker's host is stopped.
  const stopped = nodes.at(-1) as P2pNode
  let before = 0
  await takeChunks(stopped, second.peerId, { onBytes: bytes => { before = bytes; if (bytes > 200_000) void stopped.stop() } }).catch(() => undefined)
  await stopped.stop()
  await untilQuiet(nodes)
  expect(standing(nodes, '/narvik/chunks/1.0.0')).toMatchObject({ disagreement: 0, received: whole + early + before })

  // The holder ends two sessions, as it does when the image is removed: one that has all it wants, and one in the middle.
  let cut = 0
  const slow = takeChunks(first, third.peerId, { onBytes: bytes => { cut = bytes } }).catch(() => undefined)
  const last = await takeChunks(third, second.peerId, { onEnd: () => { holding.withdraw() } })
  await slow
  await untilQuiet(nodes)
  const ended = standing(nodes, '/narvik/chunks/1.0.0')
  expect(ended).toMatchObject({ disagreement: 0, received: whole + early + before + last + cut })
  expect(ended.lost).toBe(ended.broken[0] - ended.broken[1])
})

test('the books of closures balance over six hosts, also where one is left early', async () => {
  const narSize = 1_000_000
  const path: ClosurePath = { narHash: HASH, narSize, storePath: someStorePath(1), references: [], deriver: null, ca: null, signatures: [], manifestDigest: null }
  const closures = { closure: () => Promise.resolve([path]), narSize: () => narSize }
  const nodes = await startFleet(6, {}, { closures })
  const pairs = nodes.flatMap(a => nodes.filter(b => b !== a).map(b => [a, b] as const))
  /** Bytes of NARs that were taken. */
  const takeNars = async (a: P2pNode, b: P2pNode, most = Infinity): Promise<number> => {
    let taken = 0
    const answer = await fetchNars(a, b.peerId, [{ narHash: HASH, narSize }])
    if (answer.status !== 'ok') return 0
    for await (const nar of answer.nars) {
      for (let bytes = await next(nar); bytes !== undefined && taken < most; bytes = await next(nar)) taken += bytes.byteLength
      if (taken >= most) break
    }
    return taken
  }
  for (const [a, b] of pairs) expect(await fetchClosurePaths(a, b.peerId, HASH)).toEqual({ status: 'ok', paths: [path] })
  for (const [a, b] of pairs) expect(await takeNars(a, b)).toBe(narSize)
  await untilQuiet(nodes)
  const orderly = standing(nodes, '/narvik/closure/1.0.0')
  expect(orderly).toMatchObject({ disagreement: 0, lost: 0, broken: [0, 0] })
  expect(orderly.received).toBeGreaterThan(pairs.length * narSize)

  const [first, second] = nodes as [P2pNode, P2pNode]
  expect(await takeNars(first, second, 100_000)).toBeLessThan(narSize)
  await untilQuiet(nodes)
  const left = standing(nodes, '/narvik/closure/1.0.0')
  expect(left.disagreement).toBe(0)
  expect(left.broken[1]).toBeGreaterThanOrEqual(100_000)
  expect(left.lost).toBe(left.broken[0] - left.broken[1])
  expect(left.received).toBe(orderly.received + left.broken[1])
})

async function next(nar: AsyncIterable<Uint8Array> | null): Promise<Uint8Array | undefined> {
  const step = await nar?.[Symbol.asyncIterator]().next()
  return step === undefined || step.done === true ? undefined : step.value
}
