import type { Stream } from '@libp2p/interface'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { fetchNars } from '../../src/p2p/closure/client.ts'
import { closureHandler } from '../../src/p2p/closure/handler.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { metaHandler } from '../../src/p2p/meta/handler.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { narHandler } from '../../src/p2p/nar/handler.ts'
import type { StreamHandler, StreamOpener, Traffic } from '../../src/p2p/protocol.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { someHash, someMetadata } from '../helpers/images.ts'
import { connectTo, served } from '../helpers/stream-pair.ts'

const narHash = someHash('it')
const SIZE = 200_000

/** Books whose pace holds nothing back, and counts what it is asked for. */
function countingTraffic() {
  const paced = { sending: 0, taking: 0 }
  const count = (direction: 'sending' | 'taking') => async (bytes: number) => {
    paced[direction] += bytes
    await Promise.resolve()
  }
  const traffic: Traffic = { received: 0, sent: 0, pace: { sending: count('sending'), taking: count('taking') } }
  return { traffic, paced }
}

/** Both ends of a protocol, each with books of its own. */
function ends(handlerWith: (parts: { trafficOf: () => Traffic, slots: Slots, logger: typeof silentLogger, stopping: AbortSignal, source: object }) => StreamHandler) {
  const [holder, asker] = [countingTraffic(), countingTraffic()]
  const source = {
    describe: () => Promise.resolve({ verified: true, metadata: someMetadata(narHash), manifest: rangeOf(0, SIZE) }),
    read: async function* (_narHash: unknown, offset: number, length: number) { yield await Promise.resolve(rangeOf(offset, length)) },
  }
  const handler: (stream: Stream) => Promise<void> = served(handlerWith({ trafficOf: () => holder.traffic, slots: new Slots(1), logger: silentLogger, stopping: new AbortController().signal, source }))
  const inner = connectTo(handler).opener
  const opener: StreamOpener = {
    open: async (...args) => {
      const opened = await inner.open(...args)
      return opened === 'busy' ? opened : { ...opened, traffic: asker.traffic }
    },
  }
  return { opener, holder, asker }
}

async function drain(body: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const bytes of body) expect(bytes.length).toBeGreaterThan(0)
}

describe('every byte of a body is paced at both ends', () => {
  it('nar', async () => {
    const { opener, holder, asker } = ends(parts => narHandler(parts as never))
    const answer = await fetchNar(opener, 'peer', narHash, 0, SIZE)
    if (answer.status === 'ok') await drain(answer.body)
    expect([holder.paced, asker.paced]).toEqual([{ sending: SIZE, taking: 0 }, { sending: 0, taking: SIZE }])
  })

  it('meta: metadata and manifest', async () => {
    const { opener, holder, asker } = ends(parts => metaHandler(parts as never))
    expect(await fetchMetadata(opener, 'peer', narHash)).toMatchObject({ status: 'ok' })
    expect(holder.paced.sending).toBeGreaterThan(SIZE)
    expect(asker.paced.taking).toBe(holder.paced.sending)
    expect(asker.traffic.received).toBe(holder.traffic.sent)
  })

  it('closure', async () => {
    const { opener, holder, asker } = ends(parts => closureHandler({ ...parts, closures: { closure: () => Promise.resolve('not-found'), narSize: () => SIZE } } as never))
    const answer = await fetchNars(opener, 'peer', [{ narHash, narSize: SIZE }, { narHash, narSize: SIZE }])
    if (answer.status === 'ok') for await (const nar of answer.nars) if (nar !== null) await drain(nar)
    expect([holder.paced.sending, asker.paced.taking]).toEqual([2 * SIZE + 16, 2 * SIZE])
  })
})
