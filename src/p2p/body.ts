import type { Stream } from '@libp2p/interface'
import { WIRE_BUFFER_BYTES } from '../limits.ts'
import type { Traffic } from './protocol.ts'
import type { StreamReader } from './stream-reader.ts'
import { send } from './stream-writer.ts'
import type { Watchdog } from './watchdog.ts'

/** Sends bytes of a body in pieces: each waits for the limits, and is counted before it goes. */
export async function sendBody({ stream, watchdog, traffic }: { stream: Stream, watchdog: Watchdog, traffic: Traffic }, bytes: Uint8Array): Promise<void> {
  // Once all is sent, the bytes may be gone.
  const { byteLength } = bytes
  for (let start = 0; start < byteLength; start += WIRE_BUFFER_BYTES) {
    const piece = bytes.subarray(start, start + WIRE_BUFFER_BYTES)
    await traffic.pace?.sending(piece.byteLength, watchdog.signal)
    traffic.sent += piece.byteLength
    await send(stream, piece, watchdog)
  }
}

/** The next bytes of a body, counted and held to the limits: at most `most`, and at most a buffer. Null at the stream's end. */
export async function takeBody({ reader, watchdog, traffic }: { reader: StreamReader, watchdog: Watchdog, traffic: Traffic }, most: number): Promise<Uint8Array | null> {
  const atMost = Math.min(most, WIRE_BUFFER_BYTES)
  const bytes = reader.takeJoined(atMost) ?? await watchdog.wait(reader.take(atMost), 'byte of the body')
  if (bytes !== null) await countTaken(traffic, bytes.byteLength, watchdog.signal)
  return bytes
}

/** Counts bytes of a body that were taken. To be awaited before more are: not taking more is what slows the peer down. */
export function countTaken(traffic: Traffic, bytes: number, signal: AbortSignal): Promise<void> | undefined {
  traffic.received += bytes
  return traffic.pace?.taking(bytes, signal)
}
