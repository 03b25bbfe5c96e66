import { z } from 'zod'
import { NarvikError } from '../../errors.ts'
import type { ChunkRun } from '../../image/chunk-set.ts'
import { narHashText } from '../../image/metadata.ts'
import { readVarint, varintLength, VarintProblem, writeVarint } from '../../image/varint.ts'
import { MAX_SWARM_MESSAGE_BYTES, MAX_SWARM_PEERS_NAMED, MAX_WANT_CHUNKS } from '../../limits.ts'
import type { EndStatus } from './desk.ts'

export const CHUNKS_PROTOCOL = '/narvik/chunks/1.0.0'

export const chunksHello = z.strictObject({
  version: z.literal(1),
  narHash: narHashText,
  /** BLAKE3 of the manifest that numbers the chunks: who has another one is in another swarm. */
  manifestDigest: z.string().regex(/^[0-9a-f]{64}$/),
})

const peerIds = z.array(z.string().min(1).max(128)).max(MAX_SWARM_PEERS_NAMED)

export const chunksWelcome = z.discriminatedUnion('status', [
  z.strictObject({ version: z.literal(1), status: z.literal('ok') }),
  z.strictObject({
    version: z.literal(1),
    status: z.enum(['not-found', 'busy', 'refused']),
    /** With `busy`: others who are in the swarm. */
    peers: z.exactOptional(peerIds),
  }),
])

/** The first byte of a message. */
export const TYPE = { want: 1, cancel: 2, have: 16, chose: 17, chunks: 18, end: 19, ready: 20, peers: 21 } as const
const ENDS: readonly EndStatus[] = ['done', 'busy', 'not-found']

/** Bytes of a message before its body: the type, and the length of the body, least byte first. */
export const MESSAGE_HEAD_BYTES = 5
/** Bytes of a message of chunks before the chunks. */
export const MAX_CHUNKS_HEAD_BYTES = 3 * 7

/** What an asker says. */
export type AskerMessage =
  | { readonly kind: 'want', readonly id: number, readonly runs: readonly ChunkRun[], readonly choice: number | undefined }
  | { readonly kind: 'cancel', readonly id: number, readonly runs: readonly ChunkRun[] }

/** What a holder says, besides chunks. */
export type HolderMessage =
  | { readonly kind: 'have', readonly runs: readonly ChunkRun[] }
  | { readonly kind: 'chose', readonly id: number, readonly runs: readonly ChunkRun[] }
  | { readonly kind: 'end', readonly id: number, readonly status: EndStatus }
  | { readonly kind: 'ready' }
  | { readonly kind: 'peers', readonly peerIds: readonly string[] }

export function encodeAsker(message: AskerMessage): Uint8Array {
  if (message.kind === 'want') return encode(TYPE.want, [message.id, message.choice ?? 0, ...runNumbers(message.runs)])
  return encode(TYPE.cancel, [message.id, ...runNumbers(message.runs)])
}

export function encodeHolder(message: Exclude<HolderMessage, { kind: 'peers' }>): Uint8Array {
  switch (message.kind) {
    case 'have': return encode(TYPE.have, runNumbers(message.runs))
    case 'chose': return encode(TYPE.chose, [message.id, ...runNumbers(message.runs)])
    case 'end': return encode(TYPE.end, [message.id, ENDS.indexOf(message.status)])
    case 'ready': return encode(TYPE.ready, [])
  }
}

export function encodePeers(ids: readonly string[]): Uint8Array {
  return frame(TYPE.peers, Buffer.from(JSON.stringify(ids), 'utf8'))
}

/** The message before the bytes of the chunks of `run`, which are `bytes` in all. */
export function encodeChunksHead(id: number, { first, count }: ChunkRun, bytes: number): Uint8Array {
  const numbers = encodeNumbers([id, first, count])
  return Buffer.concat([head(TYPE.chunks, numbers.length + bytes), numbers])
}

/** @throws NarvikError `peer-failed` where the body is no message of an asker about an image of `count` chunks. */
export function decodeAsker(type: number, body: Uint8Array, count: number): AskerMessage {
  const reader = new NumberReader(body, count)
  const id = reader.next(Number.MAX_SAFE_INTEGER)
  if (type === TYPE.cancel) return { kind: 'cancel', id, runs: reader.runs(MAX_WANT_CHUNKS) }
  if (type !== TYPE.want) throw malformed(`a message of type ${type}`, 'one of an asker')
  const choice = reader.next(Number.MAX_SAFE_INTEGER)
  const runs = reader.runs(MAX_WANT_CHUNKS)
  if (runs.length === 0) throw malformed('a want of no chunk', 'at least one')
  return { kind: 'want', id, runs, choice: choice === 0 ? undefined : choice }
}

/** @throws NarvikError `peer-failed` where the body is no message of a holder about an image of `count` chunks. */
export function decodeHolder(type: number, body: Uint8Array, count: number): HolderMessage {
  if (type === TYPE.peers) return { kind: 'peers', peerIds: decodePeers(body) }
  const reader = new NumberReader(body, count)
  if (type === TYPE.have) return { kind: 'have', runs: reader.runs(count) }
  if (type === TYPE.ready) {
    reader.end()
    return { kind: 'ready' }
  }
  const id = reader.next(Number.MAX_SAFE_INTEGER)
  if (type === TYPE.chose) return { kind: 'chose', id, runs: reader.runs(MAX_WANT_CHUNKS) }
  if (type !== TYPE.end) throw malformed(`a message of type ${type}`, 'one of a holder')
  const status = ENDS[reader.next(ENDS.length - 1)]
  reader.end()
  if (status === undefined) throw malformed('an end of no known kind', 'one of this protocol')
  return { kind: 'end', id, status }
}

/** Splits runs so that each part fits into one message. */
export function* inMessages(runs: Iterable<ChunkRun>): Generator<ChunkRun[]> {
  let part: ChunkRun[] = []
  for (const run of runs) {
    part.push(run)
    if (part.length < MAX_RUNS) continue
    yield part
    part = []
  }
  if (part.length > 0) yield part
}

/** Runs whose numbers take at most ten bytes each fit into one message. */
const MAX_RUNS = Math.floor(MAX_SWARM_MESSAGE_BYTES / 10)

/** A run is the chunks since the end of the one before that are left out, and its own chunks less one. */
function runNumbers(runs: readonly ChunkRun[]): number[] {
  const numbers: number[] = []
  let end = 0
  for (const { first, count } of joined(runs)) {
    numbers.push(first - end, count - 1)
    end = first + count
  }
  return numbers
}

function joined(runs: readonly ChunkRun[]): ChunkRun[] {
  const all: { first: number, count: number }[] = []
  for (const { first, count } of runs) {
    const last = all.at(-1)
    if (last !== undefined && last.first + last.count === first) last.count += count
    else all.push({ first, count })
  }
  return all
}

/** Reads the numbers of a body, strictly: the shortest form, runs in order and apart from each other, nothing left over. */
class NumberReader {
  readonly #bytes: Uint8Array
  readonly #count: number
  #at = 0

  constructor(bytes: Uint8Array, count: number) {
    this.#bytes = bytes
    this.#count = count
  }

  next(max: number): number {
    try {
      const { value, end } = readVarint(this.#bytes, this.#at, max)
      this.#at = end
      return value
    } catch (error) {
      if (error instanceof VarintProblem) throw new NarvikError('peer-failed', `Cannot read a message: ${error.message}`, { cause: error })
      throw error
    }
  }

  /** All that is left, as runs of at most `max` chunks in all. */
  runs(max: number): ChunkRun[] {
    const runs: ChunkRun[] = []
    let [end, total] = [0, 0]
    while (this.#at < this.#bytes.length) {
      const gap = this.next(this.#count)
      if (gap === 0 && runs.length > 0) throw malformed('two runs that touch', 'them joined')
      const run = { first: end + gap, count: this.next(this.#count) + 1 }
      end = run.first + run.count
      total += run.count
      if (end > this.#count) throw malformed(`chunk ${end - 1}`, `chunks below ${this.#count}`)
      if (total > max) throw malformed(`more than ${max} chunks`, 'no more')
      runs.push(run)
    }
    return runs
  }

  end(): void {
    if (this.#at < this.#bytes.length) throw malformed('bytes after the last number', 'none')
  }
}

function decodePeers(body: Uint8Array): string[] {
  try {
    return peerIds.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)))
  } catch (error) {
    throw new NarvikError('peer-failed', 'Cannot read a message: found something else than peer ids, needed a list of them', { cause: error })
  }
}

function encode(type: number, numbers: readonly number[]): Uint8Array {
  return frame(type, encodeNumbers(numbers))
}

function frame(type: number, body: Uint8Array): Uint8Array {
  return Buffer.concat([head(type, body.length), body])
}

function head(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(MESSAGE_HEAD_BYTES)
  bytes[0] = type
  bytes.writeUInt32LE(length, 1)
  return bytes
}

function encodeNumbers(numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(numbers.reduce((sum, number) => sum + varintLength(number), 0))
  let at = 0
  for (const number of numbers) at = writeVarint(bytes, at, number)
  return bytes
}

function malformed(found: string, needed: string): NarvikError {
  return new NarvikError('peer-failed', `Cannot read a message: found ${found}, needed ${needed}`)
}
