import type { Stream } from '@libp2p/interface'
import { findWrongChunk, runBytes } from '../../image/chunk-check.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../../image/chunk-set.ts'
import { NarvikError } from '../../errors.ts'
import { MAX_SWARM_CHUNK_MESSAGE_BYTES, MAX_SWARM_PEERS_NAMED, MAX_SWARM_WANTS, SWARM_IDLE_MS } from '../../limits.ts'
import { sendBody } from '../body.ts'
import { freeOnceCopied } from '../freeing.ts'
import { readExactly, sendHeader } from '../header.ts'
import type { ChunkHolding, Traffic } from '../protocol.ts'
import type { StreamReader } from '../stream-reader.ts'
import { send } from '../stream-writer.ts'
import type { Watchdog } from '../watchdog.ts'
import { Desk } from './desk.ts'
import { readHead } from './frames.ts'
import { decodeAsker, encodeChunksHead, encodeHolder, encodePeers, inMessages } from './messages.ts'
import { newsPauseMs } from './news.ts'
import type { Member, Swarm } from './swarms.ts'
import type { Turns } from './turns.ts'

export interface SessionParts {
  readonly stream: Stream
  readonly reader: StreamReader
  readonly watchdog: Watchdog
  readonly holding: ChunkHolding
  readonly swarm: Swarm
  readonly turns: Turns
  readonly peerId: string
  readonly traffic: Traffic
}

/** The holding end of one stream, after the hello. Runs once; `close` lets go of everything. */
export class ServedSession {
  readonly #parts: SessionParts
  readonly #desk: Desk
  readonly #member: Member
  /** Chunks that the asker was not told of yet. */
  readonly #news: ChunkSet
  /** Peers of which the asker was told, and those of which it will be. */
  readonly #named = new Set<string>()
  #toName: string[] = []
  /** Messages that wait for chunks to go with, or for there being none: one frame costs as much as another. */
  readonly #outbox: Uint8Array[] = []
  /** Runs for a moment after the asker was told of chunks. */
  #pause: NodeJS.Timeout | undefined
  readonly #stopListening: () => void
  readonly #startedAt = performance.now()
  #wake: (() => void) | undefined
  #hasWork = true
  #asks = true

  constructor(parts: SessionParts) {
    const { holding, swarm, turns, peerId, watchdog } = parts
    this.#parts = parts
    this.#desk = new Desk({
      turns, leastSent: swarm.leastSent, lengthOf: chunk => holding.chunks.length(chunk), now: () => performance.now(), onWork: () => { this.#notify() },
    }, { messageBytes: MAX_SWARM_CHUNK_MESSAGE_BYTES })
    this.#news = new ChunkSet(holding.chunks.count)
    for (const chunk of holding.have.from(0)) this.#news.add(chunk)
    this.#stopListening = holding.onAdded(run => {
      this.#news.addRun(run)
      // The end of the pause is soon enough.
      if (this.#pause === undefined) this.#notify()
    })
    this.#member = { peerId, onPeer: other => { this.#name([other]) } }
    this.#name(swarm.others(peerId))
    swarm.join(this.#member)
    holding.gone.addEventListener('abort', this.#onOver)
    watchdog.signal.addEventListener('abort', this.#onOver)
  }

  /** Serves until the asker ends its side, or the image is not to be given away any more. */
  async run(): Promise<void> {
    const { stream, watchdog } = this.#parts
    await sendHeader(stream, { version: 1, status: 'ok' }, watchdog)
    const listening = this.#listen()
    listening.catch((error: unknown) => { this.#giveUp(error) })
    await this.#serve()
    // As the asker counts every session, which can't know what was still to come.
    this.#parts.traffic.breakOff?.()
  }

  close(): void {
    this.#stopListening()
    clearTimeout(this.#pause)
    this.#parts.holding.gone.removeEventListener('abort', this.#onOver)
    this.#parts.watchdog.signal.removeEventListener('abort', this.#onOver)
    this.#parts.swarm.leave(this.#member)
    this.#desk.close()
    this.#notify()
  }

  readonly #onOver = (): void => { this.#notify() }

  /** What goes wrong while it listens ends the sending, which tells of it. */
  #giveUp(error: unknown): void {
    this.#parts.traffic.breakOff?.()
    this.#parts.watchdog.giveUp(error)
    this.#notify()
  }

  async #listen(): Promise<void> {
    const { reader, watchdog, holding } = this.#parts
    while (true) {
      const head = await readHead(reader, watchdog, SWARM_IDLE_MS)
      if (head === null) break
      const message = decodeAsker(head.type, await readExactly(reader, head.length, watchdog), holding.chunks.count)
      if (message.kind === 'cancel') this.#desk.cancel(message.id, message.runs)
      else this.#take(message)
    }
    this.#asks = false
    this.#notify()
  }

  #take({ id, runs, choice }: { id: number, runs: readonly ChunkRun[], choice: number | undefined }): void {
    // Each want that is open for the asker is one here, or has an answer or two on the way.
    if (this.#desk.backlog >= 3 * MAX_SWARM_WANTS) throw new NarvikError('peer-failed', `Cannot serve: found more wants than ${MAX_SWARM_WANTS}, needed no more`)
    if (this.#desk.isOpen(id)) throw new NarvikError('peer-failed', `Cannot serve: found want ${id} again, needed another number`)
    for (const chunk of chunksOf(runs)) {
      if (!this.#parts.holding.have.has(chunk)) throw new NarvikError('peer-failed', `Cannot serve: found a want of chunk ${chunk}, needed one that was announced`)
    }
    this.#desk.want(id, runs, choice)
  }

  async #serve(): Promise<void> {
    const { watchdog, holding } = this.#parts
    while (this.#asks && !holding.gone.aborted && !watchdog.signal.aborted) {
      this.#hasWork = false
      this.#tellNews()
      // The rest of what would be too much for one message goes after it, as fast as the asker takes it.
      if (this.#news.size > 0 && this.#pause === undefined) {
        await this.#flush()
        continue
      }
      const outgoing = this.#desk.next()
      if (outgoing?.kind === 'chunks') await this.#sendChunks(outgoing.id, outgoing.run)
      else if (outgoing !== undefined) this.#outbox.push(encodeHolder(outgoing))
      else if (this.#outbox.length > 0) await this.#flush()
      else await this.#untilWork()
    }
    if (watchdog.reason !== undefined) throw watchdog.reason as Error
  }

  /** News go before chunks, as others wait for them; but several in one message. */
  #tellNews(): void {
    if (this.#toName.length > 0) this.#outbox.push(encodePeers(this.#toName))
    this.#toName = []
    if (this.#news.size === 0 || this.#pause !== undefined) return
    const [runs = []] = inMessages(this.#news.runs())
    for (const run of runs) this.#news.deleteRun(run)
    this.#outbox.push(encodeHolder({ kind: 'have', runs }))
    if (this.#news.size === 0) this.#pauseNews()
  }

  #pauseNews(): void {
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      this.#notify()
    }, newsPauseMs(performance.now() - this.#startedAt))
    this.#pause.unref()
  }

  async #flush(): Promise<void> {
    const { stream, watchdog } = this.#parts
    await send(stream, Buffer.concat(this.#outbox.splice(0)), watchdog)
  }

  /** Nothing leaves that is not what it should be: a damaged disk is noticed here, by the one who has it. */
  async #sendChunks(id: number, run: ChunkRun): Promise<void> {
    const { watchdog, holding, traffic } = this.#parts
    using _held = await traffic.flight?.take(runBytes(holding.chunks, run), watchdog.signal)
    const bytes = await this.#read(run)
    if (bytes === undefined) {
      this.#desk.lost(id)
      return
    }
    this.#outbox.push(encodeChunksHead(id, run, bytes.length))
    await this.#flush()
    // Read for this asker alone.
    freeOnceCopied(bytes)
    await sendBody(this.#parts, bytes)
    this.#desk.sent(runBytes(holding.chunks, run))
  }

  async #read(run: ChunkRun): Promise<Uint8Array | undefined> {
    const { watchdog, holding } = this.#parts
    const bytes = await holding.read(run, { signal: watchdog.signal }).catch(() => undefined)
    watchdog.signal.throwIfAborted()
    const wrong = bytes && findWrongChunk(holding.chunks, run, bytes)
    if (wrong === undefined) return bytes
    holding.damaged(wrong)
    return undefined
  }

  #name(peerIds: readonly string[]): void {
    for (const peerId of peerIds) {
      if (this.#named.has(peerId) || this.#named.size >= MAX_SWARM_PEERS_NAMED) continue
      this.#named.add(peerId)
      this.#toName.push(peerId)
    }
    this.#notify()
  }

  async #untilWork(): Promise<void> {
    const { signal } = this.#parts.watchdog
    if (this.#hasWork || signal.aborted) return
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.#wake = () => { resolve(undefined) }
    await promise
  }

  #notify(): void {
    this.#hasWork = true
    this.#wake?.()
    this.#wake = undefined
  }
}
