import type { z } from 'zod'
import { messageOf, NarvikError } from '../errors.ts'
import { HEADER_TIMEOUT_MS } from '../limits.ts'
import { readHeader, sendHeader } from './header.ts'
import type { StreamOpener, Traffic } from './protocol.ts'
import { StreamReader } from './stream-reader.ts'
import { Watchdog } from './watchdog.ts'

export interface AskOptions {
  readonly signal?: AbortSignal | undefined
  /** Milliseconds without a byte from the peer after which it has failed. */
  readonly stallMs?: number | undefined
  readonly headerTimeoutMs?: number | undefined
}

/** The asking end of one exchange, from the reply's header on. Must be ended or failed. */
export interface Answer<Reply> {
  readonly reply: Reply
  readonly reader: StreamReader
  readonly watchdog: Watchdog
  readonly traffic: Traffic
  /** After the last byte was read. */
  readonly end: () => void
  /** Gives the stream up. Returns what the caller is to be told: its own reason to stop, or `peer-failed`. */
  readonly fail: (error: unknown) => unknown
}

/** Sends a request on a new stream and reads the reply's header. `action` completes `Cannot …`. */
export async function ask<Schema extends z.ZodType>(
  opener: StreamOpener,
  { peerId, protocol, request, schema, action }: { peerId: string, protocol: string, request: unknown, schema: Schema, action: string },
  { signal: callerSignal, stallMs, headerTimeoutMs = HEADER_TIMEOUT_MS }: AskOptions,
): Promise<Answer<z.output<Schema>> | 'busy'> {
  const opened = await opener.open(peerId, protocol, { signal: callerSignal })
  if (opened === 'busy') return 'busy'
  const { stream, signal, traffic } = opened
  const reader = new StreamReader(stream)
  const watchdog = new Watchdog(stream, { signal, stallMs })
  const end = (): void => { watchdog.stop() }
  const fail = (error: unknown): unknown => {
    const reason = watchdog.reason ?? error
    stream.abort(reason instanceof Error ? reason : new Error(messageOf(reason)))
    watchdog.stop()
    traffic.breakOff?.()
    return signal.aborted ? signal.reason : peerFailed(reason, action)
  }
  try {
    await sendHeader(stream, request, watchdog)
    await watchdog.wait(stream.close({ signal: watchdog.signal }), 'room for the request')
    const reply = await watchdog.wait(readHeader(reader, schema), 'whole reply', headerTimeoutMs)
    return { reply, reader, watchdog, traffic, end, fail }
  } catch (error) {
    throw fail(error)
  }
}

/** What failed, said with what was to be done. */
export function peerFailed(error: unknown, action: string): NarvikError {
  return new NarvikError('peer-failed', `Cannot ${action}: ${withoutAction(messageOf(error))}`, { cause: error })
}

/** `found …, needed …` of a message that has another action before it. */
function withoutAction(message: string): string {
  const found = message.indexOf(': found ')
  return message.startsWith('Cannot ') && found >= 0 ? message.slice(found + 2) : message
}
