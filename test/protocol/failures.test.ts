import { describe, expect, it } from 'vitest'
import { messageOf, NarvikError } from '../../src/errors.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { fetchClosurePaths, fetchNars } from '../../src/p2p/closure/client.ts'
import { closureHandler } from '../../src/p2p/closure/handler.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { metaHandler } from '../../src/p2p/meta/handler.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { narHandler } from '../../src/p2p/nar/handler.ts'
import type { StreamHandler } from '../../src/p2p/protocol.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { connectTo, served, type Ends } from '../helpers/stream-pair.ts'

const HASH = NarHash.fromBytes(rangeOf(0, 32))
const SECRET_PATH = '/var/lib/narvik/images/somewhere'

function fail(): never {
  throw new NarvikError('io-error', `Cannot read ${SECRET_PATH}: EIO: i/o error, open '${SECRET_PATH}'`)
}

const source = {
  describe: () => Promise.resolve().then(fail),
  // eslint-disable-next-line require-yield -- it fails at its first step
  async *read(): AsyncGenerator<Uint8Array> {
    await Promise.resolve()
    fail()
  },
}
const common = { source, slots: new Slots(4), logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => ({ received: 0, sent: 0 }) }
const closures = { closure: () => Promise.resolve().then(fail), narSize: () => 100 }

async function drain(body: AsyncIterable<unknown>): Promise<void> {
  const parts = body[Symbol.asyncIterator]()
  while ((await parts.next()).done !== true) continue
}

async function drainNars({ opener }: Ends): Promise<void> {
  const answer = await fetchNars(opener, 'peer', [{ narHash: HASH, narSize: 100 }])
  if (answer.status !== 'ok') return
  for await (const nar of answer.nars) if (nar !== null) await drain(nar)
}

async function drainNar({ opener }: Ends): Promise<void> {
  const answer = await fetchNar(opener, 'peer', HASH, 0, 100)
  if (answer.status === 'ok') await drain(answer.body)
}

describe('a host that can not read its own disk', () => {
  const exchanges: readonly [string, StreamHandler, (ends: Ends) => Promise<unknown>][] = [
    ['meta', metaHandler(common), ({ opener }) => fetchMetadata(opener, 'peer', HASH)],
    ['nar', narHandler(common), drainNar],
    ['closure, paths', closureHandler({ ...common, closures }), ({ opener }) => fetchClosurePaths(opener, 'peer', HASH)],
    ['closure, NARs', closureHandler({ ...common, closures }), drainNars],
  ]

  // Guard: `serve` resets the stream and sends nothing of the error.
  it.each(exchanges)('tells the peer nothing of it: %s', async (_name, handler, ask) => {
    const ends = connectTo(served(handler))
    const heard: Buffer[] = []
    const watched: Ends = {
      ...ends,
      opener: {
        open: async (...args) => {
          const opened = await ends.opener.open(...args)
          if (opened === 'busy') throw new Error('busy')
          const { stream } = opened
          const dispatch = stream.dispatchEvent.bind(stream)
          stream.dispatchEvent = event => {
            if (event.type === 'message') heard.push(Buffer.from((event as unknown as { data: { subarray(): Uint8Array } }).data.subarray()))
            return dispatch(event)
          }
          return opened
        },
      },
    }
    const error = await ask(watched).then(() => undefined, (thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'peer-failed' })
    expect(messageOf(error)).not.toContain('/var/lib')
    expect(Buffer.concat(heard).toString('latin1')).not.toMatch(/var|EIO|Cannot/)
  })
})
