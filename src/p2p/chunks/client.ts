import type { Stream } from '@libp2p/interface'
import { isChunk, runBytes } from '../../image/chunk-check.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import type { ChunkRun } from '../../image/chunk-set.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { messageOf, NarvikError } from '../../errors.ts'
import { HEADER_TIMEOUT_MS, MAX_SWARM_CHUNK_MESSAGE_BYTES } from '../../limits.ts'
import { type AskOptions, peerFailed } from '../ask.ts'
import { countTaken } from '../body.ts'
import { copied } from '../freeing.ts'
import { expectEnd, readExactly, readHeader, sendHeader } from '../header.ts'
import type { OpenStream, Refusal, StreamOpener, Traffic } from '../protocol.ts'
import { StreamReader } from '../stream-reader.ts'
import { send } from '../stream-writer.ts'
import { Watchdog } from '../watchdog.ts'
import { type MessageHead, readChunksHead, readHead } from './frames.ts'
import { type AskerMessage, CHUNKS_PROTOCOL, chunksWelcome, decodeHolder, encodeAsker, type HolderMessage, TYPE } from './messages.ts'
import { Owed } from './owed.ts'

/** What a session tells its reader. */
export type SessionMessage =
  | HolderMessage
  /** Chunks that were asked for, each of which has its hash. The buffer is the reader's. */
  | { readonly kind: 'chunks', readonly id: number, readonly run: ChunkRun, readonly bytes: Uint8Array }
  /** The peer sent other bytes than those of a chunk: nothing more follows. */
  | { readonly kind: 'lie', readonly id: number, readonly chunk: number }

export interface SwarmQuestion {
  readonly narHash: NarHash
  readonly manifestDigest: string
  readonly chunks: ChunkList
}

export type SessionAnswer =
  | { readonly status: 'ok', readonly session: ChunkSession }
  /** `peers`: others that may have chunks. */
  | { readonly status: Refusal, readonly peers: readonly string[] }

export interface SessionOptions extends AskOptions {
  /** Called with the bytes of chunks as they come, also of such as are not whole yet. */
  readonly onBytes?: ((bytes: number) => void) | undefined
}

/**
 * Opens a session with a peer, to get chunks of one image from it.
 * @throws NarvikError `peer-failed` where the peer can't be reached or breaks the protocol.
 */
export async function openSession(opener: StreamOpener, peerId: string, question: SwarmQuestion, options: SessionOptions = {}): Promise<SessionAnswer> {
  const { narHash, manifestDigest } = question
  const action = `receive chunks of ${narHash.toNix32()} from peer ${peerId}`
  const opened = await opener.open(peerId, CHUNKS_PROTOCOL, { signal: options.signal })
  if (opened === 'busy') return { status: 'busy', peers: [] }
  const session = new ChunkSession(opened, question, action, options)
  const refusal = await session.greet({ version: 1, narHash: narHash.toSri(), manifestDigest }, options.headerTimeoutMs ?? HEADER_TIMEOUT_MS)
  return refusal ?? { status: 'ok', session }
}

/** The asking end of one stream. `messages` must be read, and the session closed. */
export class ChunkSession {
  readonly #stream: Stream
  readonly #signal: AbortSignal
  readonly #traffic: Traffic
  readonly #reader: StreamReader
  readonly #watchdog: Watchdog
  readonly #chunks: ChunkList
  readonly #action: string
  readonly #onBytes: ((bytes: number) => void) | undefined
  readonly #owed: Owed
  /** Holds the chunks of one message after the other: buffers that come and go would lie about until the next collection of all garbage. */
  #buffer: Buffer | undefined
  #sending: Promise<void> = Promise.resolve()
  #closed = false

  constructor({ stream, signal, traffic }: OpenStream, { chunks }: SwarmQuestion, action: string, { stallMs, onBytes }: SessionOptions) {
    this.#stream = stream
    this.#signal = signal
    this.#traffic = traffic
    this.#reader = new StreamReader(stream)
    this.#watchdog = new Watchdog(stream, { signal, stallMs })
    this.#chunks = chunks
    this.#action = action
    this.#onBytes = onBytes
    this.#owed = new Owed(chunks)
  }

  /** Says who asks for what; answers with what the peer says against it. */
  async greet(hello: unknown, timeoutMs: number): Promise<Exclude<SessionAnswer, { status: 'ok' }> | undefined> {
    try {
      await sendHeader(this.#stream, hello, this.#watchdog)
      const reply = await this.#watchdog.wait(readHeader(this.#reader, chunksWelcome), 'whole reply', timeoutMs)
      if (reply.status === 'ok') return undefined
      await this.#watchdog.wait(expectEnd(this.#reader), 'end of the stream')
      await this.close()
      return { status: reply.status, peers: reply.peers ?? [] }
    } catch (error) {
      throw this.#fail(error)
    }
  }

  /** Asks for all of the runs, or for `choice` bytes of them that the peer chooses. A peer that does not take it fails the session. */
  want(id: number, runs: readonly ChunkRun[], choice: number | undefined): void {
    this.#owed.asked(id, runs, choice)
    this.#say({ kind: 'want', id, runs, choice })
  }

  /** The runs of a want are needed no more; they may still come. */
  cancel(id: number, runs: readonly ChunkRun[]): void {
    this.#owed.cancelled(id, runs)
    this.#say({ kind: 'cancel', id, runs })
  }

  /**
   * What the peer says, until it ends the session; to be read once. While it is not read, the peer is held up. The bytes of chunks are there
   * until the next message is asked for.
   * @throws NarvikError `peer-failed` where the peer breaks the protocol or takes nothing for a while; the signal's reason where that aborts.
   */
  async *messages(): AsyncGenerator<SessionMessage> {
    try {
      for (let head = await this.#head(); head !== null; head = await this.#head()) {
        if (head.type === TYPE.chunks) yield* this.#readChunks(head.length)
        else yield this.#checked(decodeHolder(head.type, await this.#body(head.length), this.#chunks.count))
      }
      this.#owed.checkNothingOwed()
    } catch (error) {
      throw this.#fail(error)
    } finally {
      await this.close()
    }
  }

  /** Fails the session: its reader is told. */
  giveUp(reason: NarvikError): void {
    this.#watchdog.giveUp(reason)
  }

  /** Ends the session. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#watchdog.stop()
    // Neither end can know that all has come that was sent; so both count every session as broken off.
    this.#traffic.breakOff?.()
    if (this.#stream.status !== 'open') return
    // What the peer still sends is not wanted: only a reset tells it at once.
    this.#stream.abort(new Error('the session is over'))
    await this.#sending
  }

  #head(): Promise<MessageHead | null> {
    return readHead(this.#reader, this.#watchdog)
  }

  async *#readChunks(length: number): AsyncGenerator<SessionMessage> {
    const { id, first, count, left } = await this.#wait(readChunksHead(this.#reader, length), 'rest of a message')
    const run = { first, count }
    this.#owed.arrive(id, run)
    const bytes = runBytes(this.#chunks, run)
    if (bytes !== left || bytes > MAX_SWARM_CHUNK_MESSAGE_BYTES) throw new NarvikError('peer-failed', `Cannot take chunks: found ${left} bytes, needed ${bytes}`)
    this.#buffer ??= Buffer.allocUnsafeSlow(MAX_SWARM_CHUNK_MESSAGE_BYTES)
    const buffer = this.#buffer.subarray(0, bytes)
    const start = this.#chunks.offset(first)
    for (let chunk = first; chunk < first + count; chunk++) {
      const part = buffer.subarray(this.#chunks.offset(chunk) - start, this.#chunks.offset(chunk + 1) - start)
      await this.#fill(part)
      if (isChunk(this.#chunks, chunk, part)) continue
      if (chunk > first) yield { kind: 'chunks', id, run: { first, count: chunk - first }, bytes: buffer.subarray(0, this.#chunks.offset(chunk) - start) }
      yield { kind: 'lie', id, chunk }
      throw new NarvikError('peer-failed', `Cannot take chunk ${chunk}: found bytes of another hash, needed its own`)
    }
    yield { kind: 'chunks', id, run, bytes: buffer }
  }

  async #fill(out: Buffer): Promise<void> {
    for (let filled = 0; filled < out.length;) {
      const most = out.length - filled
      const part = this.#reader.takeNow(most) ?? await this.#wait(this.#reader.take(most), 'byte of a chunk')
      if (part === null) throw new NarvikError('peer-failed', `Cannot take chunks: found the end of the stream after ${filled} bytes of one, needed ${out.length}`)
      const { byteLength } = part
      out.set(part, filled)
      copied(part)
      filled += byteLength
      await countTaken(this.#traffic, byteLength, this.#watchdog.signal)
      this.#onBytes?.(byteLength)
    }
  }

  #body(length: number): Promise<Uint8Array> {
    return readExactly(this.#reader, length, this.#watchdog)
  }

  #wait<T>(step: Promise<T>, what: string): Promise<T> {
    return this.#watchdog.wait(step, what)
  }

  #checked(message: HolderMessage): HolderMessage {
    if (message.kind === 'have') this.#owed.announced(message.runs)
    else if (message.kind === 'chose') this.#owed.chosen(message.id, message.runs)
    else if (message.kind === 'end') this.#owed.ended(message.id, message.status)
    else if (message.kind === 'peers') this.#owed.named(message.peerIds)
    return message
  }

  #say(message: AskerMessage): void {
    this.#sending = this.#sending.then(() => send(this.#stream, encodeAsker(message), this.#watchdog)).catch((error: unknown) => {
      // The reader of the messages is told.
      if (!this.#closed) this.#fail(error)
    })
  }

  /** Gives the stream up; returns what the caller is to be told. */
  #fail(error: unknown): unknown {
    const reason = this.#watchdog.reason ?? error
    this.#watchdog.stop()
    this.#traffic.breakOff?.()
    this.#stream.abort(reason instanceof Error ? reason : new Error(messageOf(reason)))
    return this.#signal.aborted ? this.#signal.reason : peerFailed(reason, this.#action)
  }
}
