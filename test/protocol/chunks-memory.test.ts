import type { Stream } from '@libp2p/interface'
import { expect, it, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { openSession } from '../../src/p2p/chunks/client.ts'
import { chunksHandler } from '../../src/p2p/chunks/handler.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { muxer } from '../../src/p2p/stack.ts'
import { MADE_UP_DIGEST, MADE_UP_HASH, madeUpChunks, MadeUpHolding } from '../helpers/made-up-chunks.ts'
import { served } from '../helpers/stream-pair.ts'
import { secure } from '../helpers/tls-pair.ts'

const watched = vi.hoisted((): { bytes: Uint8Array, length: number }[] => [])
vi.mock(import('../../src/p2p/freeing.ts'), async original => {
  const { freeOnceCopied, copied } = await original()
  return {
    copied,
    freeOnceCopied: bytes => {
      watched.push({ bytes, length: bytes.byteLength })
      freeOnceCopied(bytes)
    },
  }
})

/** One stream through TLS and the muxer that a node uses. */
async function streamOverTls(): Promise<{ near: Stream, far: Stream }> {
  const { outbound, inbound } = await secure()
  const [out, inn] = await Promise.all([outbound, inbound])
  const [nearMuxer, farMuxer] = [out, inn].map(({ connection }) => {
    const factory: ReturnType<typeof muxer> = muxer()
    return factory.createStreamMuxer(connection)
  })
  if (nearMuxer === undefined || farMuxer === undefined) throw new Error('found no muxer')
  const { promise, resolve } = Promise.withResolvers<Stream>()
  farMuxer.addEventListener('stream', ({ detail }) => { resolve(detail) })
  const near = await nearMuxer.createStream()
  return { near, far: await promise }
}

// What outlives the young generation of the heap is otherwise freed when there are 64 MiB of it.
it('leaves no memory for the garbage collection of the bytes of chunks, at either end', async () => {
  const image = madeUpChunks(400)
  const { near, far } = await streamOverTls()
  const books = { received: 0, sent: 0 }
  const handler = chunksHandler({
    source: new MadeUpHolding(image), turns: new Turns({ places: 4, quantumBytes: 2 ** 26, claimMs: 1000 }), logger: silentLogger,
    stopping: new AbortController().signal, trafficOf: () => books,
  })
  void served(handler)(far)
  const opener = { open: () => Promise.resolve({ stream: near, signal: new AbortController().signal, traffic: { received: 0, sent: 0 } }) }
  const answer = await openSession(opener, 'holder', { narHash: MADE_UP_HASH, manifestDigest: MADE_UP_DIGEST, chunks: image.chunks })
  if (answer.status !== 'ok') throw new Error(`answered ${answer.status}`)
  answer.session.want(1, [{ first: 0, count: 400 }], undefined)
  let received = 0
  for await (const message of answer.session.messages()) {
    if (message.kind === 'chunks') received += message.bytes.byteLength
    else if (message.kind === 'end') break
  }
  expect(received).toBe(image.bytes.byteLength)
  const left = watched.reduce((sum, { bytes }) => sum + bytes.byteLength, 0)
  // What came before the first message, and what has just come.
  expect(left).toBeLessThan(64 * 1024)
  // Once where they were sent and once where they came.
  expect(watched.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThan(2 * received)
})
