import type { z } from 'zod'
import { NarvikError } from '../../errors.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { MAX_CLOSURE_BYTES, MAX_PACKED_NAR_BYTES } from '../../limits.ts'
import { type Answer, ask, type AskOptions } from '../ask.ts'
import { takeBody } from '../body.ts'
import { expectEnd, readExactly, readHeader } from '../header.ts'
import type { ClosurePath, Refusal, StreamOpener } from '../protocol.ts'
import { CLOSURE_PROTOCOL, narsReply, pathMessage, pathsReply } from './messages.ts'

export type ClosureAnswer =
  | { readonly status: 'ok', readonly paths: readonly ClosurePath[] }
  | { readonly status: Refusal | 'incomplete' }

/**
 * Asks a peer for the paths of a closure: dependencies first, the image that is asked for last. They are what the peer
 * says, and not proven; but closed, without circles, and nothing among them that the last one doesn't need.
 * @throws NarvikError `peer-failed` where the peer can't be reached or breaks the protocol.
 */
export async function fetchClosurePaths(opener: StreamOpener, peerId: string, narHash: NarHash, options: AskOptions = {}): Promise<ClosureAnswer> {
  const action = `receive the closure of ${narHash.toNix32()} from peer ${peerId}`
  const request = { version: 1, want: 'paths', narHash: narHash.toSri() }
  const answer = await ask(opener, { peerId, protocol: CLOSURE_PROTOCOL, request, schema: pathsReply, action }, options)
  if (answer === 'busy') return { status: 'busy' }
  try {
    const { reply, reader, watchdog } = answer
    const paths = reply.status === 'ok' ? await readPaths(answer, reply.count) : []
    await watchdog.wait(expectEnd(reader), 'end of the stream')
    if (reply.status === 'ok') checkRoot(paths, narHash)
    answer.end()
    return reply.status === 'ok' ? { status: 'ok', paths } : { status: reply.status }
  } catch (error) {
    throw answer.fail(error)
  }
}

async function readPaths({ reader, watchdog, traffic }: Answer<unknown>, count: number): Promise<ClosurePath[]> {
  const paths: ClosurePath[] = []
  const storePaths = new Set<string>()
  const needed = new Set<number>()
  const start = reader.taken
  for (let number = 0; number < count; number++) {
    const before = reader.taken
    const path = await watchdog.wait(readHeader(reader, pathMessage), 'whole path')
    traffic.received += reader.taken - before
    if (reader.taken - start > MAX_CLOSURE_BYTES) throw broken(`${reader.taken - start} bytes of paths`, `at most ${MAX_CLOSURE_BYTES}`)
    checkPath(path, number)
    if (storePaths.has(path.storePath)) throw broken(`${path.storePath} twice`, 'each path once')
    storePaths.add(path.storePath)
    for (const reference of path.references) if (reference !== number) needed.add(reference)
    paths.push(path)
  }
  // With each path needed by a later one, all of them are needed by the last.
  if (needed.size !== count - 1) throw broken(`${count - 1 - needed.size} paths that nothing refers to`, 'only what the image needs')
  return paths
}

function checkPath({ references, storePath }: z.output<typeof pathMessage>, number: number): void {
  const wrong = references.find((reference, index) => reference > number || (index > 0 && reference <= (references[index - 1] ?? 0)))
  if (wrong !== undefined) throw broken(`that ${storePath}, number ${number}, refers to ${wrong}`, 'ascending numbers of paths before it')
}

function checkRoot(paths: readonly ClosurePath[], narHash: NarHash): void {
  const found = paths.at(-1)?.narHash
  if (found?.equals(narHash) !== true) throw broken(`${found?.toNix32() ?? 'nothing'} as the last path`, narHash.toNix32())
}

/** A NAR that is to come, with the size that was announced. */
export interface WantedNar {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
}

export type NarsAnswer =
  | {
    readonly status: 'ok'
    /**
     * For each NAR that was asked for, in order, its bytes, or null where the peer does not send it. What is left of one is
     * passed over when the next is asked for. To be read once; leaving the loop early ends the stream. Throws as `fetchNar`.
     */
    readonly nars: AsyncIterable<AsyncIterable<Uint8Array> | null>
  }
  | { readonly status: Refusal | 'incomplete' }

/** Asks a peer for many NARs in one stream; at most MAX_PACKED_NARS, none larger than MAX_PACKED_NAR_BYTES. */
export async function fetchNars(opener: StreamOpener, peerId: string, wanted: readonly WantedNar[], options: AskOptions = {}): Promise<NarsAnswer> {
  const action = `receive ${wanted.length} NARs from peer ${peerId}`
  const request = { version: 1, want: 'nars', narHashes: wanted.map(({ narHash }) => narHash.toSri()) }
  const answer = await ask(opener, { peerId, protocol: CLOSURE_PROTOCOL, request, schema: narsReply, action }, options)
  if (answer === 'busy') return { status: 'busy' }
  const { reply } = answer
  if (reply.status === 'ok') return { status: 'ok', nars: readNars(answer, wanted) }
  try {
    await answer.watchdog.wait(expectEnd(answer.reader), 'end of the stream')
    answer.end()
    return { status: reply.status }
  } catch (error) {
    throw answer.fail(error)
  }
}

async function* readNars(answer: Answer<unknown>, wanted: readonly WantedNar[]): AsyncGenerator<AsyncIterable<Uint8Array> | null, void, undefined> {
  let settled = false
  try {
    for (const nar of wanted) {
      const length = await readLength(answer)
      if (length === 0) {
        yield null
        continue
      }
      if (length !== nar.narSize) throw broken(`a NAR of ${length} bytes`, `${nar.narSize} for ${nar.narHash.toNix32()}`)
      const body = readBody(answer, length)
      yield { [Symbol.asyncIterator]: () => ({ next: () => body.next() }) }
      for (let step = await body.next(); step.done !== true; step = await body.next()) { /* passed over */ }
    }
    await answer.watchdog.wait(expectEnd(answer.reader), 'end of the stream')
    settled = true
    answer.end()
  } catch (error) {
    settled = true
    throw answer.fail(error)
  } finally {
    if (!settled) answer.fail(new Error('the reader of the NARs left early'))
  }
}

async function readLength({ reader, watchdog, traffic }: Answer<unknown>): Promise<number> {
  const bytes = await readExactly(reader, 8, watchdog)
  traffic.received += 8
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  if (length <= BigInt(MAX_PACKED_NAR_BYTES)) return Number(length)
  throw broken(`a NAR of ${length} bytes`, `at most ${MAX_PACKED_NAR_BYTES}`)
}

async function* readBody(answer: Answer<unknown>, length: number): AsyncGenerator<Uint8Array, void, undefined> {
  for (let missing = length; missing > 0;) {
    const bytes = await takeBody(answer, missing)
    if (bytes === null) throw broken(`the end of the stream after ${length - missing} bytes of a NAR`, String(length))
    missing -= bytes.byteLength
    yield bytes
  }
}

function broken(found: string, needed: string): NarvikError {
  return new NarvikError('peer-failed', `Cannot read a closure: found ${found}, needed ${needed}`)
}
