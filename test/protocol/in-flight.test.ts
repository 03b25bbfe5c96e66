import { expect, it, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { openSession } from '../../src/p2p/chunks/client.ts'
import { chunksHandler } from '../../src/p2p/chunks/handler.ts'
import { Turns } from '../../src/p2p/chunks/turns.ts'
import { fetchNars } from '../../src/p2p/closure/client.ts'
import { closureHandler } from '../../src/p2p/closure/handler.ts'
import { InFlight } from '../../src/p2p/in-flight.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { metaHandler } from '../../src/p2p/meta/handler.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { narHandler } from '../../src/p2p/nar/handler.ts'
import type { StreamHandler, StreamOpener } from '../../src/p2p/protocol.ts'
import type { ServeComponents } from '../../src/p2p/serve.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { MadeUpSource } from '../helpers/bytes.ts'
import { MADE_UP_DIGEST, MADE_UP_HASH, madeUpChunks, MadeUpHolding } from '../helpers/made-up-chunks.ts'
import { connectTo, served } from '../helpers/stream-pair.ts'

const SIZE = 700_000
const image = madeUpChunks(40)

interface Case {
  readonly handler: (components: ServeComponents) => StreamHandler
  /** Takes all that there is. */
  readonly ask: (opener: StreamOpener) => Promise<unknown>
  /** Bytes that were read to be sent. */
  readonly read: () => number
}

async function drain(buffers: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const { byteLength } of buffers) expect(byteLength).toBeGreaterThan(0)
}

const CASES: Readonly<Record<string, () => Case>> = {
  nar: () => {
    const source = new MadeUpSource(MADE_UP_HASH, SIZE)
    return {
      handler: components => narHandler({ ...components, source, slots: new Slots(1) }),
      ask: async opener => {
        const answer = await fetchNar(opener, 'peer', MADE_UP_HASH, 0, SIZE)
        if (answer.status === 'ok') await drain(answer.body)
      },
      read: () => source.pulled,
    }
  },
  closure: () => {
    const source = new MadeUpSource(MADE_UP_HASH, SIZE)
    const closures = { narSize: () => SIZE, closure: () => Promise.resolve('not-found' as const) }
    return {
      handler: components => closureHandler({ ...components, source, closures, slots: new Slots(1) }),
      ask: async opener => {
        const answer = await fetchNars(opener, 'peer', [{ narHash: MADE_UP_HASH, narSize: SIZE }])
        if (answer.status === 'ok') for await (const nar of answer.nars) await drain(nar ?? (async function* () { /* nothing */ })())
      },
      read: () => source.pulled,
    }
  },
  meta: () => {
    let read = 0
    const source = new MadeUpSource(MADE_UP_HASH, SIZE)
    return {
      handler: components => metaHandler({ ...components, slots: new Slots(1), source: { describe: narHash => { read += 1; return source.describe(narHash) } } }),
      ask: opener => fetchMetadata(opener, 'peer', MADE_UP_HASH),
      read: () => read,
    }
  },
  chunks: () => {
    const holding = new MadeUpHolding(image)
    return {
      handler: components => chunksHandler({ ...components, source: holding, turns: new Turns({ places: 4, quantumBytes: 2 ** 30, claimMs: 1000 }) }),
      ask: async opener => {
        const answer = await openSession(opener, 'holder', { narHash: MADE_UP_HASH, manifestDigest: MADE_UP_DIGEST, chunks: image.chunks })
        if (answer.status !== 'ok') throw new Error(answer.status)
        answer.session.want(1, [{ first: 0, count: 40 }], undefined)
        for await (const { kind } of answer.session.messages()) if (kind === 'end') break
      },
      read: () => holding.readRuns.length,
    }
  },
}

// Watches the bound on what is on the way to one peer (in-flight.ts) in each handler: nothing is read before there is room, and all of it is given back.
it.each(Object.keys(CASES))('%s reads nothing for a peer that has too much on the way, and goes on when that has gone', async protocol => {
  const { handler, ask, read } = CASES[protocol]?.() ?? {} as Case
  const all = new InFlight({ perPeer: 300_000, inAll: 300_000 })
  const flight = all.newPeer()
  const never = new AbortController().signal
  const before = await flight.take(300_000, never)
  const asked = { times: 0 }
  const watched = { take: (bytes: number, signal: AbortSignal) => { asked.times += 1; return flight.take(bytes, signal) } }
  const serving = handler({ logger: silentLogger, stopping: never, trafficOf: () => ({ received: 0, sent: 0, flight: watched }) })
  const { opener } = connectTo(served(serving))
  const done = ask(opener)
  await vi.waitFor(() => { expect(asked.times).toBe(1) })
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  expect([asked.times, read()]).toEqual([1, 0])
  before[Symbol.dispose]()
  await done
  expect(read()).toBeGreaterThan(0)
  await vi.waitFor(() => { expect(all.total).toBe(0) })
})
