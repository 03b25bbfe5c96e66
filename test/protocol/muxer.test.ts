import type { Stream } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { expect, it, onTestFinished, vi } from 'vitest'
import { muxer } from '../../src/p2p/stack.ts'
import { StreamReader } from '../../src/p2p/stream-reader.ts'
import { send } from '../../src/p2p/stream-writer.ts'
import { Watchdog } from '../../src/p2p/watchdog.ts'

const MESSAGE = 4096
const MESSAGES = 1024
const WINDOW = 1024 * 1024
/** Bytes of a frame that says how much room there is. */
const UPDATE = 12

it('a receiver says that there is room once in a quarter of a window, not after each small message', async () => {
  const [outbound, inbound] = multiaddrConnectionPair({ delay: 0, capacity: 64 })
  onTestFinished(() => {
    outbound.abort(new Error('the test is over'))
    inbound.abort(new Error('the test is over'))
  })
  const factory: ReturnType<typeof muxer> = muxer()
  const near = factory.createStreamMuxer(outbound)
  const far = factory.createStreamMuxer(inbound)
  const { promise, resolve } = Promise.withResolvers<Stream>()
  far.addEventListener('stream', ({ detail }) => { resolve(detail) })
  const answered = vi.spyOn(inbound, 'send')
  const stream = await near.createStream()
  const watchdog = new Watchdog(stream, {})
  onTestFinished(() => { watchdog.stop() })

  const sending = (async () => { for (let sent = 0; sent < MESSAGES; sent++) await send(stream, new Uint8Array(MESSAGE), watchdog) })()
  const reader = new StreamReader(await promise)
  for (let missing = MESSAGES * MESSAGE; missing > 0;) missing -= (await reader.take(missing))?.byteLength ?? NaN
  await sending

  const bytes = answered.mock.calls.reduce((sum, [sent]) => sum + sent.byteLength, 0)
  const rooms = MESSAGES * MESSAGE / (WINDOW / 4)
  expect(bytes).toBeGreaterThan(0)
  // As many as there are quarters, the two of the start, and a ping and its reply.
  expect(bytes / UPDATE).toBeLessThanOrEqual(rooms + 4)
})
