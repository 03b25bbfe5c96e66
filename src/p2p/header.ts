import type { Stream } from '@libp2p/interface'
import type { z } from 'zod'
import { NarvikError } from '../errors.ts'
import { MAX_WIRE_HEADER_BYTES } from '../limits.ts'
import { countTaken } from './body.ts'
import { copied } from './freeing.ts'
import { send } from './stream-writer.ts'
import type { Traffic } from './protocol.ts'
import type { StreamReader } from './stream-reader.ts'
import type { Watchdog } from './watchdog.ts'

/** Bytes of the longest length prefix of a header within its limit. */
const MAX_PREFIX_BYTES = 3
/** What is so short and here already needs no step of its own. */
const SHORT_BYTES = 16

/** A header on the wire: its length as an unsigned varint (LEB128, shortest form), then that many bytes of JSON. */
export function encodeHeader(value: unknown): Uint8Array {
  const json = Buffer.from(JSON.stringify(value), 'utf8')
  if (json.length > MAX_WIRE_HEADER_BYTES) {
    throw new NarvikError('too-large', `Cannot send a header: found ${json.length} bytes, needed at most ${MAX_WIRE_HEADER_BYTES}`)
  }
  return Uint8Array.from(Buffer.concat([Buffer.from(encodeLength(json.length)), json]))
}

export async function sendHeader(stream: Stream, value: unknown, watchdog: Watchdog): Promise<void> {
  await send(stream, encodeHeader(value), watchdog)
}

/**
 * Reads a header and not a byte more.
 * @throws NarvikError `peer-failed` where it is too long, cut short, no JSON or not of the schema.
 */
export async function readHeader<Schema extends z.ZodType>(reader: StreamReader, schema: Schema): Promise<z.output<Schema>> {
  const bytes = await readExactly(reader, await readLength(reader))
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new NarvikError('peer-failed', `Cannot read a header: found ${bytes.length} bytes that are no JSON, needed JSON`, { cause: error })
  }
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const where = issue === undefined || issue.path.length === 0 ? 'as a whole' : `at ${issue.path.map(String).join('.')}`
  throw new NarvikError('peer-failed', `Cannot read a header: found ${where} ${(issue?.message ?? 'a mistake').slice(0, 200)}, needed one of this protocol's`)
}

/** Exactly `length` bytes. Memory is taken as they arrive, so that a length that lies costs nothing. With a watchdog, each step is waited for by it; with a traffic too, the bytes are counted and paced as those of a body. */
export async function readExactly(reader: StreamReader, length: number, watchdog?: Watchdog, traffic?: Traffic): Promise<Uint8Array> {
  let bytes = Buffer.allocUnsafe(Math.min(length, MAX_WIRE_HEADER_BYTES))
  let filled = 0
  while (filled < length) {
    const here = length <= SHORT_BYTES ? reader.takeNow(length - filled) : undefined
    const part = here ?? await waited(reader.take(length - filled), watchdog)
    if (part === null) throw new NarvikError('peer-failed', `Cannot read from the peer: found the end of the stream after ${filled} bytes, needed ${length}`)
    if (filled + part.byteLength > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.min(length, Math.max(bytes.length * 2, filled + part.byteLength)))
      bytes.copy(larger, 0, 0, filled)
      bytes = larger
    }
    bytes.set(part, filled)
    const { byteLength } = part
    filled += byteLength
    copied(part)
    if (traffic !== undefined && watchdog !== undefined) await countTaken(traffic, byteLength, watchdog.signal)
  }
  return bytes
}

function waited<T>(step: Promise<T>, watchdog: Watchdog | undefined): Promise<T> {
  return watchdog?.wait(step, 'byte of the body') ?? step
}

/** @throws NarvikError `peer-failed` where the stream goes on. */
export async function expectEnd(reader: StreamReader): Promise<void> {
  const more = await reader.take(1)
  if (more !== null) throw new NarvikError('peer-failed', 'Cannot end the exchange: found bytes after the last one, needed the end of the stream')
}

async function readLength(reader: StreamReader): Promise<number> {
  let length = 0
  for (let index = 0; index < MAX_PREFIX_BYTES; index++) {
    const byte = (await readExactly(reader, 1))[0] ?? 0
    length += (byte & 0x7f) * 2 ** (7 * index)
    if (byte >= 0x80) continue
    if (byte === 0 && index > 0) throw new NarvikError('peer-failed', 'Cannot read a header: found a length in a longer form, needed the shortest')
    return checkLength(length)
  }
  throw new NarvikError('peer-failed', `Cannot read a header: found a length of more than ${MAX_PREFIX_BYTES} bytes, needed a header of at most ${MAX_WIRE_HEADER_BYTES}`)
}

function checkLength(length: number): number {
  if (length >= 2 && length <= MAX_WIRE_HEADER_BYTES) return length
  throw new NarvikError('peer-failed', `Cannot read a header: found a length of ${length}, needed 2 to ${MAX_WIRE_HEADER_BYTES}`)
}

function encodeLength(length: number): number[] {
  const bytes: number[] = []
  let rest = length
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  return [...bytes, rest]
}
