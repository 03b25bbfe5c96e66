import { NarvikError } from '../../errors.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { STREAM_STALL_MS } from '../../limits.ts'
import { type Answer, ask, type AskOptions } from '../ask.ts'
import { takeBody } from '../body.ts'
import { expectEnd } from '../header.ts'
import type { Refusal, StreamOpener } from '../protocol.ts'
import { NAR_PROTOCOL, narReply } from './messages.ts'

export type NarAnswer =
  | {
    readonly status: 'ok'
    /**
     * Yields exactly the bytes asked for, or throws: `peer-failed` where the peer sends fewer, more or nothing for a while,
     * the signal's reason where it aborts. A slow consumer slows the peer down. To be read once; leaving the loop early ends the stream.
     */
    readonly body: AsyncIterable<Uint8Array>
  }
  | { readonly status: Refusal }

/**
 * Asks a peer for a range of an image's NAR.
 * @throws NarvikError `peer-failed` where the peer can't be reached or breaks the protocol.
 */
export async function fetchNar(
  opener: StreamOpener, peerId: string, narHash: NarHash, offset: number, length: number, options: AskOptions = {},
): Promise<NarAnswer> {
  const action = `receive bytes ${offset} to ${offset + length} of ${narHash.toNix32()} from peer ${peerId}`
  const request = { version: 1, narHash: narHash.toSri(), offset, length }
  const answer = await ask(opener, { peerId, protocol: NAR_PROTOCOL, request, schema: narReply, action }, options)
  if (answer === 'busy') return { status: 'busy' }
  const { reply } = answer
  if (reply.status !== 'ok') return refused(answer, reply.status)
  if (reply.length !== length) {
    throw answer.fail(new NarvikError('peer-failed', `Cannot ${action}: found an offer of ${reply.length} bytes, needed ${length}`))
  }
  return { status: 'ok', body: bodyOf(answer, length, options.stallMs ?? STREAM_STALL_MS) }
}

async function refused(answer: Answer<unknown>, status: Refusal): Promise<NarAnswer> {
  try {
    await answer.watchdog.wait(expectEnd(answer.reader), 'end of the stream')
    answer.end()
    return { status }
  } catch (error) {
    throw answer.fail(error)
  }
}

function bodyOf(answer: Answer<unknown>, length: number, claimMs: number): AsyncIterable<Uint8Array> {
  // A body that nobody reads must not keep its stream.
  const unclaimed = setTimeout(() => {
    answer.fail(new Error('found no reader of the body, needed one'))
  }, claimMs)
  unclaimed.unref()
  return (async function* () {
    clearTimeout(unclaimed)
    yield* readBody(answer, length)
  })()
}

async function* readBody(answer: Answer<unknown>, length: number): AsyncGenerator<Uint8Array> {
  const { reader, watchdog, end, fail } = answer
  let missing = length
  let settled = false
  try {
    while (missing > 0) {
      if (watchdog.reason !== undefined) throw new Error('the exchange was given up')
      const bytes = await takeBody(answer, missing)
      if (bytes === null) throw new NarvikError('peer-failed', `Cannot read the body: found its end after ${length - missing} bytes, needed ${length}`)
      missing -= bytes.byteLength
      yield bytes
    }
    await watchdog.wait(expectEnd(reader), 'end of the stream')
    settled = true
    end()
  } catch (error) {
    settled = true
    throw fail(error)
  } finally {
    if (!settled) fail(new Error('the reader of the body left early'))
  }
}
