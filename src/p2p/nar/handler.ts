import { pipe } from 'it-pipe'
import type { z } from 'zod'
import { isNarvikError } from '../../errors.ts'
import { WIRE_BUFFER_BYTES } from '../../limits.ts'
import { sendBody } from '../body.ts'
import { sendHeader } from '../header.ts'
import { inFlight } from '../in-flight.ts'
import type { ImageSource, Refusal, StreamHandler } from '../protocol.ts'
import { type Exchange, serve, type ServeComponents, type ServeInit } from '../serve.ts'
import type { Slots } from '../slots.ts'
import { exactly } from '../stages.ts'
import { narRequest } from './messages.ts'

export interface NarHandlerComponents extends ServeComponents {
  readonly source: ImageSource
  readonly slots: Slots
}

/** Serves `/narvik/nar/1.0.0`: the bytes of a range of a NAR, read as fast as the peer takes them. */
export function narHandler({ source, slots, ...components }: NarHandlerComponents, init: ServeInit = {}): StreamHandler {
  return serve(components, init, narRequest, async exchange => {
    const release = slots.take()
    if (release === undefined) {
      await refuse(exchange, 'busy')
      return
    }
    try {
      await sendRange(exchange, source)
    } finally {
      release()
    }
  })
}

type NarExchange = Exchange<z.output<typeof narRequest>>

async function sendRange(exchange: NarExchange, source: ImageSource): Promise<void> {
  const { stream, request: { narHash, offset, length }, watchdog, traffic } = exchange
  exchange.concerns(narHash)
  const bytes = source.read(narHash, offset, length, { signal: watchdog.signal })
  const range = inFlight(traffic.flight, WIRE_BUFFER_BYTES, watchdog.signal)(bytes)[Symbol.asyncIterator]()
  // The first bytes are read before the reply's header, which says whether there are any.
  const first = await firstStep(range)
  if (typeof first === 'string') {
    await refuse(exchange, first)
    return
  }
  traffic.sends?.(narHash)
  await sendHeader(stream, { version: 1, status: 'ok', length }, watchdog)
  await pipe(
    resumed(first, range),
    exactly(length),
    async pieces => {
      for await (const piece of pieces) await sendBody(exchange, piece)
    },
  )
}

async function firstStep(range: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array> | Refusal> {
  try {
    return await range.next()
  } catch (error) {
    if (isNarvikError(error, 'not-found')) return 'not-found'
    if (isNarvikError(error, 'invalid-argument')) return 'refused'
    throw error
  }
}

async function* resumed(first: IteratorResult<Uint8Array>, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    for (let step = first; step.done !== true; step = await rest.next()) yield step.value
  } finally {
    await rest.return?.()
  }
}

async function refuse({ stream, watchdog }: NarExchange, status: Refusal): Promise<void> {
  await sendHeader(stream, { version: 1, status }, watchdog)
}
