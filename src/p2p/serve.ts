import type { Stream } from '@libp2p/interface'
import type { z } from 'zod'
import { codeOf, type ErrorCode, isNarvikError, messageOf } from '../errors.ts'
import { HEADER_TIMEOUT_MS } from '../limits.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Logger } from '../log.ts'
import { expectEnd, readHeader } from './header.ts'
import type { Served, StreamHandler, Traffic } from './protocol.ts'
import { StreamReader } from './stream-reader.ts'
import { Watchdog } from './watchdog.ts'

export interface ServeComponents {
  readonly logger: Logger
  /** Aborts when the node stops. */
  readonly stopping: AbortSignal
  /** Opens the account of an exchange with a peer. */
  readonly trafficOf: (peerId: string) => Traffic
  /** Called when an exchange is over. */
  readonly onServed?: ((exchange: Served) => void) | undefined
}

export interface ServeInit {
  readonly stallMs?: number | undefined
  readonly headerTimeoutMs?: number | undefined
}

/** One exchange, as the serving end sees it. */
export interface Exchange<Request> {
  readonly stream: Stream
  readonly request: Request
  readonly watchdog: Watchdog
  readonly traffic: Traffic
  /** Says which image it is about, once the peer has. */
  readonly concerns: (narHash: NarHash) => void
}

/**
 * Makes a handler of one request and one reply. The request must be the only thing that the peer sends; `reply` sends
 * everything else. Whatever fails resets the stream, and the peer learns nothing else.
 */
export function serve<Schema extends z.ZodType>(
  components: ServeComponents,
  { stallMs, headerTimeoutMs = HEADER_TIMEOUT_MS }: ServeInit,
  schema: Schema,
  reply: (exchange: Exchange<z.output<Schema>>) => Promise<void>,
): StreamHandler {
  return attend(components, { stallMs }, async ({ stream, reader, watchdog, traffic, concerns }) => {
    const request = await watchdog.wait(readRequest(reader, schema), 'whole request', headerTimeoutMs)
    await reply({ stream, request, watchdog, traffic, concerns })
  })
}

/** A stream that a peer has opened, from its first byte on. */
export interface Attended extends Omit<Exchange<unknown>, 'request'> {
  readonly reader: StreamReader
  readonly peerId: string
}

/** Makes a handler that closes the stream when `work` is done. Whatever fails resets it, and the peer learns nothing else. */
export function attend({ logger, stopping, trafficOf, onServed }: ServeComponents, { stallMs }: Pick<ServeInit, 'stallMs'>, work: (attended: Attended) => Promise<void>): StreamHandler {
  return async (stream, { remotePeer }) => {
    const reader = new StreamReader(stream)
    const watchdog = new Watchdog(stream, { signal: stopping, stallMs })
    const peerId = remotePeer.toString()
    const traffic = trafficOf(peerId)
    const startedAt = new Date()
    let code: ErrorCode | undefined
    let about: NarHash | undefined
    try {
      await work({ stream, reader, watchdog, traffic, peerId, concerns: narHash => { about = narHash } })
      await watchdog.wait(stream.close({ signal: watchdog.signal }), 'room for the last bytes')
    } catch (error) {
      const reason = watchdog.reason ?? error
      code = isNarvikError(reason) ? codeOf(reason) : 'peer-failed'
      traffic.breakOff?.()
      stream.abort(reason instanceof Error ? reason : new Error(messageOf(reason)))
      const level = isNarvikError(reason) && !isNarvikError(reason, 'peer-failed', 'interrupted') ? 'warn' : 'debug'
      logger[level]('gave up serving a peer', { peerId, protocol: stream.protocol, reason: messageOf(reason) })
    } finally {
      traffic.end?.()
      watchdog.stop()
      onServed?.({ peerId, protocol: stream.protocol, about, startedAt, sent: traffic.sent, code })
    }
  }
}

async function readRequest<Schema extends z.ZodType>(reader: StreamReader, schema: Schema): Promise<z.output<Schema>> {
  const request = await readHeader(reader, schema)
  await expectEnd(reader)
  return request
}
