import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import type { HostEvent } from '../../../src/control/api.ts'
import { Outbox } from '../../../src/control/outbox.ts'
import { MAX_WAITING_EVENTS } from '../../../src/limits.ts'

function numbered(number: number): HostEvent {
  return { at: '2026-03-01T12:00:00.000Z', type: 'log', level: 'warn', message: String(number), fields: {} }
}

test('a reader that keeps up gets everything, in order', async () => {
  const pipe = new PassThrough()
  const read = text(pipe)
  const outbox = new Outbox(pipe)
  for (let number = 0; number < 500; number++) outbox.send(numbered(number))
  await new Promise(resolve => { setImmediate(resolve) })
  pipe.end()
  const lines = (await read).trimEnd().split('\n').map(line => JSON.parse(line) as HostEvent)
  expect(lines).toEqual(Array.from({ length: 500 }, (_, number) => numbered(number)))
})

test('for one that reads nothing a bounded number waits, and a mark says how many were left out', async () => {
  const pipe = new PassThrough({ highWaterMark: 1 })
  const outbox = new Outbox(pipe)
  const sent = 3 * MAX_WAITING_EVENTS
  for (let number = 0; number < sent; number++) outbox.send(numbered(number))
  expect(pipe.writableLength).toBeLessThan(1000)
  const read = text(pipe)
  await new Promise<void>(resolve => {
    const poll = (): void => { if (pipe.writableLength === 0) resolve(); else setImmediate(poll) }
    setImmediate(poll)
  })
  pipe.end()
  const events = (await read).trimEnd().split('\n').map(line => JSON.parse(line) as HostEvent)
  const lost = events.find(event => event.type === 'lost')
  expect(events.at(-1)).toBe(lost)
  expect((lost?.type === 'lost' ? lost.count : 0) + events.length - 1).toBe(sent)
  expect(events.length).toBeLessThanOrEqual(MAX_WAITING_EVENTS + 3)
})
