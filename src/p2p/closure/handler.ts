import type { z } from 'zod'
import type { NarHash } from '../../image/nar-hash.ts'
import { MAX_PACKED_NAR_BYTES, WIRE_BUFFER_BYTES } from '../../limits.ts'
import { sendBody } from '../body.ts'
import { encodeHeader, sendHeader } from '../header.ts'
import { inFlight } from '../in-flight.ts'
import type { ClosurePath, ClosureSource, ImageSource, Refusal, StreamHandler } from '../protocol.ts'
import { type Exchange, serve, type ServeComponents, type ServeInit } from '../serve.ts'
import type { Slots } from '../slots.ts'
import { exactly } from '../stages.ts'
import { closureRequest } from './messages.ts'

export interface ClosureHandlerComponents extends ServeComponents {
  readonly source: Pick<ImageSource, 'read'>
  readonly closures: ClosureSource
  readonly slots: Slots
}

/** Serves `/narvik/closure/1.0.0`: what a closure consists of, and many small NARs in one stream. */
export function closureHandler({ source, closures, slots, ...components }: ClosureHandlerComponents, init: ServeInit = {}): StreamHandler {
  return serve(components, init, closureRequest, async exchange => {
    const release = slots.take()
    if (release === undefined) {
      await refuse(exchange, 'busy')
      return
    }
    try {
      const { request } = exchange
      if (request.want === 'paths') await sendPaths(exchange, await closures.closure(request.narHash))
      else await sendNars(exchange, { source, closures }, request.narHashes)
    } finally {
      release()
    }
  })
}

type ClosureExchange = Exchange<z.output<typeof closureRequest>>

async function sendPaths(exchange: ClosureExchange, closure: readonly ClosurePath[] | 'not-found' | 'incomplete'): Promise<void> {
  if (typeof closure === 'string') {
    await refuse(exchange, closure)
    return
  }
  await sendHeader(exchange.stream, { version: 1, status: 'ok', count: closure.length }, exchange.watchdog)
  const body = new Joined(exchange)
  for (const { narHash, narSize, storePath, references, deriver, ca, signatures, manifestDigest } of closure) {
    await body.add(encodeHeader({ narHash, narSize, storePath, references, deriver, ca, signatures, manifestDigest }))
  }
  await body.flush()
}

async function sendNars(exchange: ClosureExchange, { source, closures }: Pick<ClosureHandlerComponents, 'source' | 'closures'>, narHashes: readonly NarHash[]): Promise<void> {
  await sendHeader(exchange.stream, { version: 1, status: 'ok' }, exchange.watchdog)
  const body = new Joined(exchange)
  for (const narHash of narHashes) {
    const size = closures.narSize(narHash) ?? 0
    const length = size > MAX_PACKED_NAR_BYTES ? 0 : size
    await body.add(encodeLength(length))
    if (length === 0) continue
    const { traffic, watchdog: { signal } } = exchange
    const nar = inFlight(traffic.flight, WIRE_BUFFER_BYTES, signal)(source.read(narHash, 0, length, { signal }))
    for await (const piece of exactly(length)(nar)) await body.add(piece)
  }
  await body.flush()
}

function encodeLength(length: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(length))
  return bytes
}

/** Joins what is small, so that a thousand small things are not a thousand messages; what is large goes as it is. */
class Joined {
  readonly #exchange: ClosureExchange
  #parts: Uint8Array[] = []
  #length = 0

  constructor(exchange: ClosureExchange) {
    this.#exchange = exchange
  }

  async add(bytes: Uint8Array): Promise<void> {
    if (this.#length + bytes.byteLength > WIRE_BUFFER_BYTES) await this.flush()
    this.#parts.push(bytes)
    this.#length += bytes.byteLength
  }

  async flush(): Promise<void> {
    if (this.#length === 0) return
    const [only] = this.#parts
    const bytes = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts)
    this.#parts = []
    this.#length = 0
    await sendBody(this.#exchange, bytes)
  }
}

async function refuse({ stream, watchdog }: ClosureExchange, status: Refusal | 'incomplete'): Promise<void> {
  await sendHeader(stream, { version: 1, status }, watchdog)
}
