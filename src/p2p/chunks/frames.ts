import { NarvikError } from '../../errors.ts'
import { readVarint, VarintProblem } from '../../image/varint.ts'
import { MAX_SWARM_CHUNK_MESSAGE_BYTES, MAX_SWARM_MESSAGE_BYTES } from '../../limits.ts'
import { copied } from '../freeing.ts'
import { readExactly } from '../header.ts'
import type { StreamReader } from '../stream-reader.ts'
import type { Watchdog } from '../watchdog.ts'
import { MAX_CHUNKS_HEAD_BYTES, MESSAGE_HEAD_BYTES, TYPE } from './messages.ts'

export interface MessageHead {
  readonly type: number
  /** Bytes of the body, which follow. */
  readonly length: number
}

/** The head of the next message, or null at the end of the stream. Its length is within the limit of its type. It may begin at any time within `idleMs`. */
export async function readHead(reader: StreamReader, watchdog: Watchdog, idleMs?: number): Promise<MessageHead | null> {
  const beginning = reader.take(1)
  const first = await (idleMs === undefined ? beginning : watchdog.wait(beginning, 'message', idleMs))
  if (first === null) return null
  const [type = 0] = first
  copied(first)
  const rest = Buffer.from(await readExactly(reader, MESSAGE_HEAD_BYTES - 1, watchdog))
  const head = { type, length: rest.readUInt32LE(0) }
  const most = head.type === TYPE.chunks ? MAX_CHUNKS_HEAD_BYTES + MAX_SWARM_CHUNK_MESSAGE_BYTES : MAX_SWARM_MESSAGE_BYTES
  if (head.length <= most) return head
  throw new NarvikError('peer-failed', `Cannot read a message: found one of ${head.length} bytes, needed at most ${most}`)
}

/** The numbers before the chunks of a message, and the bytes that are left of its body. */
export async function readChunksHead(reader: StreamReader, length: number): Promise<{ id: number, first: number, count: number, left: number }> {
  let left = length
  const numbers: number[] = []
  for (let index = 0; index < 3; index++) {
    const bytes: number[] = []
    do {
      if (left === 0 || bytes.length === MAX_NUMBER_BYTES) throw new NarvikError('peer-failed', 'Cannot read a message: found no whole number, needed one before the chunks')
      bytes.push((await readExactly(reader, 1))[0] ?? 0)
      left -= 1
    } while ((bytes.at(-1) ?? 0) >= 0x80)
    numbers.push(parse(Uint8Array.from(bytes)))
  }
  const [id = 0, first = 0, count = 0] = numbers
  return { id, first, count, left }
}

const MAX_NUMBER_BYTES = MAX_CHUNKS_HEAD_BYTES / 3

function parse(bytes: Uint8Array): number {
  try {
    return readVarint(bytes, 0, Number.MAX_SAFE_INTEGER).value
  } catch (error) {
    if (error instanceof VarintProblem) throw new NarvikError('peer-failed', `Cannot read a message: ${error.message}`, { cause: error })
    throw error
  }
}
