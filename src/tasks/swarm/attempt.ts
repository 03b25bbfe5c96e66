import { isNarvikError, messageOf } from '../../errors.ts'
import { runBytes } from '../../image/chunk-check.ts'
import type { ChunkList } from '../../image/chunk-list.ts'
import { type ChunkRun, ChunkSet, chunksOf } from '../../image/chunk-set.ts'
import { decodeManifest, manifestDigest } from '../../image/manifest.ts'
import type { PeerShare, Sources as SourceBooks } from '../../image/verdict.ts'
import { type FollowedTree, Follower } from '../../nar/follower.ts'
import { Layout } from '../../nar/layout.ts'
import { sealTree } from '../../nar/seal.ts'
import { TreeWriter } from '../../nar/tree-writer.ts'
import type { Claim } from '../../verify/pipeline.ts'
import type { TaskContext } from '../context.ts'
import { claimsOf, type Introduction, prepare, type Word } from '../introduction.ts'
import { findWrongChunks } from '../find-damage.ts'
import { readIfThere } from '../read-run.ts'
import type { Job } from '../jobs.ts'
import type { Providers } from '../providers.ts'
import { reuseLocal } from '../reuse.ts'
import { claimRoom } from '../space/claim-room.ts'
import { RoomGuard } from '../space/guard-room.ts'
import { Books } from './books.ts'
import { Checkpoints } from './checkpoints.ts'
import { condemn } from './condemn.ts'
import { decodeProgress, encodeProgress } from './progress.ts'
import { seedOf } from './random.ts'
import { copyOwn, Repeats } from './repeats.ts'
import { ReceivingImage } from './receiving.ts'
import { Scheduler } from './scheduler.ts'
import { Sources } from './sources.ts'

interface Parts {
  readonly word: Word
  readonly layout: Layout
  readonly chunks: ChunkList
  readonly have: ChunkSet
  readonly books: Books
}

/** Where what comes goes. */
interface Sinks {
  readonly writer: TreeWriter
  readonly checkpoints: Checkpoints
  readonly sources: Sources
  readonly repeats: Repeats
}

/** One try at receiving an image in chunks, under one manifest, from whoever has some of them. */
export class SwarmAttempt {
  readonly kind = 'chunks'
  readonly layout: Layout
  readonly #context: TaskContext
  readonly #job: Job<unknown>
  readonly #word: Word
  readonly #chunks: ChunkList
  readonly #books: Books
  readonly #image: ReceivingImage
  /** Bytes of the NAR that are on disk. */
  #bytes = 0
  /** The first chunk that is not on disk. */
  #frontier = 0
  #isAnnounced = false
  #follower: Follower | undefined
  readonly #room: RoomGuard
  /** Chunks that the last recheck found wrong on disk. */
  #wrong = new ChunkSet(0)
  #contradiction: { peerId: string, detail: string } | undefined

  private constructor(context: TaskContext, job: Job<unknown>, { word, layout, chunks, have, books }: Parts) {
    const { content, catalog } = context
    const { narHash, signal } = job
    this.#room = new RoomGuard(() => context.space.check({ signal }))
    this.#context = context
    this.#job = job
    this.#word = word
    this.layout = layout
    this.#chunks = chunks
    this.#books = books
    const trees = function* (): Generator<string> {
      yield content.quarantineTree(narHash)
      const row = catalog.get(narHash)
      const visible = row && content.visiblePath(row)
      // It is on its way from one to the other before the catalog knows.
      yield typeof visible === 'string' ? visible : content.imageTree(narHash)
    }
    this.#image = new ReceivingImage({ narHash, manifestDigest: word.manifestDigest, layout, chunks, trees })
    for (const run of have.runs()) this.#keep(run)
  }

  /**
   * Takes up what an earlier run of the daemon has left on disk, if anything: what the progress claims is believed, as it was durable before it was
   * claimed; what came after that is checked.
   */
  static async resume(context: TaskContext, job: Job<unknown>): Promise<SwarmAttempt | undefined> {
    const { catalog, content } = context
    const bytes = catalog.manifest(job.narHash)
    if (bytes === undefined) return undefined
    const manifest = decodeManifest(bytes)
    const { chunks } = manifest
    const progress = decodeProgress(await content.readProgress(job.narHash), chunks.count)
    if (progress?.word.manifestDigest !== manifestDigest(bytes)) return undefined
    const layout = Layout.describedBy(manifest)
    const arrived = new ChunkSet(chunks.count)
    for (const chunk of chunksOf(content.readArrivals(job.narHash, chunks.count))) if (!progress.proven.has(chunk)) arrived.add(chunk)
    const wrong = await findWrongChunks(content.quarantineTree(job.narHash), { layout, chunks }, arrived, job.signal)
    for (const chunk of arrived.from(0)) if (!wrong.has(chunk)) progress.proven.add(chunk)
    await claimRoom(context, job, { layout, chunks }, chunk => !progress.proven.has(chunk))
    return new SwarmAttempt(context, job, { word: progress.word, layout, chunks, have: progress.proven, books: new Books(progress.books) })
  }

  /** Starts with nothing, on the word of a provider. */
  static async begin(context: TaskContext, job: Job<unknown>, introduction: Introduction): Promise<SwarmAttempt> {
    await prepare(context, job, introduction)
    const { word, layout, chunks } = introduction
    const attempt = new SwarmAttempt(context, job, { word, layout, chunks, have: new ChunkSet(chunks.count), books: new Books() })
    // From here on it is known that the image is received in chunks, and under which manifest.
    await context.content.begin(job.narHash)
    await context.content.writeProgress(job.narHash, attempt.#snapshot())
    return attempt
  }

  get isWhole(): boolean {
    return this.#image.have.size === this.#chunks.count
  }

  /** Bytes of the NAR that are on disk. */
  get offset(): number {
    return this.#bytes
  }

  get voucher(): string | null {
    return this.#word.voucher
  }

  get manifestDigest(): string {
    return this.#word.manifestDigest
  }

  /** A chunk that has the hash that the manifest says, and is not what its listing says: the manifest contradicts itself. */
  get contradiction(): { peerId: string, detail: string } | undefined {
    return this.#contradiction
  }

  /** Who sent bytes of use, in the order of their first one. */
  get peers(): string[] {
    return this.#books.senders
  }

  get claims(): Claim[] {
    return claimsOf(this.#word, this.#job.narHash, this.layout.narSize)
  }

  shares(verdict: 'pass' | 'fail'): PeerShare[] {
    return this.#books.shares(verdict)
  }

  get sources(): SourceBooks {
    return this.#books.sources()
  }

  /**
   * Receives what is missing.
   * @throws NarvikError `no-provider`, `disk-full`, `io-error`; the reason of the job's signal.
   */
  async receive(providers: Providers): Promise<void> {
    const { content, receiving } = this.#context
    const { narHash, signal } = this.#job
    this.#start()
    await content.begin(narHash)
    await using stack = new AsyncDisposableStack()
    const writer = await TreeWriter.open(content.quarantineTree(narHash), this.layout, { signal })
    stack.defer(() => writer.close())
    this.#follower = new Follower(writer)
    this.#follower.advance(this.#complete)
    const arrivals = content.openArrivals(narHash)
    stack.defer(() => { arrivals.close() })
    const checkpoints = new Checkpoints({ context: this.#context, narHash, writer, arrivals, snapshot: () => this.#snapshot() })
    receiving.add(this.#image)
    this.#tell()
    try {
      await this.#reuse(writer, checkpoints)
      if (!this.isWhole) await this.#run(providers, writer, checkpoints)
    } catch (error) {
      this.end()
      await this.#follower.stop()
      await checkpoints.save().catch((late: unknown) => { this.#context.logger.warn('cannot write the progress', { narHash: narHash.toSri(), reason: messageOf(late) }) })
      throw error
    }
    await checkpoints.save()
  }

  /** Seals the tree, which goes to the verify pipeline; gives what it was found to be while it came, where that is still so. */
  async seal(options: { signal: AbortSignal, onProgress: (bytes: number) => void }): Promise<FollowedTree | undefined> {
    if (this.#follower !== undefined && this.#contradiction === undefined) return this.#follower.seal(options)
    await this.#follower?.stop()
    await sealTree(this.#context.content.quarantineTree(this.#job.narHash))
    return undefined
  }

  /** Goes on with an image of which every byte has arrived before; no provider is needed. */
  takeUp(): void {
    this.#start()
  }

  /** Nothing of the image is given on any more, unless it is verified now. */
  end(): void {
    const { receiving, catalog, announcer } = this.#context
    receiving.remove(this.#image)
    if (catalog.get(this.#job.narHash)?.state === 'verified') return
    this.#image.end()
    announcer.withdraw(this.#job.narHash)
  }

  /**
   * Holds every chunk on disk against its hash; what is wrong is missing from then on. Answers how many chunks were wrong: then it was not the manifest
   * that lied, but the disk or the memory of this host.
   */
  async recheck(): Promise<number> {
    this.#wrong = await findWrongChunks(this.#context.content.quarantineTree(this.#job.narHash), { layout: this.layout, chunks: this.#chunks }, this.#image.have, this.#job.signal)
    return this.#wrong.size
  }

  /** The image to be taken up again without the chunks that the recheck found wrong on disk. */
  repaired(): SwarmAttempt {
    const right = new ChunkSet(this.#chunks.count)
    for (const chunk of this.#image.have.from(0)) if (!this.#wrong.has(chunk)) right.add(chunk)
    return new SwarmAttempt(this.#context, this.#job, { word: this.#word, layout: this.layout, chunks: this.#chunks, have: right, books: this.#books })
  }

  async #run(providers: Providers, writer: TreeWriter, checkpoints: Checkpoints): Promise<void> {
    const { narHash, signal } = this.#job
    const repeats = new Repeats(this.#chunks, chunk => !this.#image.have.has(chunk))
    const scheduler = new Scheduler(this.#chunks, { seed: seedOf(this.#context.node.peerId), proven: this.#image.have, copies: repeats.copies })
    const stop = new AbortController()
    const sources: Sources = new Sources({
      context: this.#context, scheduler, providers, signal: AbortSignal.any([signal, stop.signal]),
      question: { narHash, manifestDigest: this.manifestDigest, chunks: this.#chunks },
      sink: {
        take: (peerId, run, bytes) => this.#take(peerId, run, bytes, { writer, checkpoints, sources, repeats }),
        wasted: (peerId, bytes) => { this.#books.wasted(peerId, bytes) },
        lied: (peerId, chunk) => { condemn(this.#context, { books: this.#books, providers, chunks: this.#chunks }, peerId, chunk) },
        failed: (peerId, reason) => { this.#books.failed(peerId, reason) },
      },
    })
    this.#image.onMet = peerId => { sources.meet(peerId) }
    try {
      await sources.run()
    } catch (error) {
      if (!isNarvikError(error, 'invalid-nar')) throw error
      this.#contradiction = { peerId: this.voucher ?? 'the manifest', detail: messageOf(error) }
    } finally {
      this.#image.onMet = () => undefined
    }
  }

  async #take(peerId: string, run: ChunkRun, bytes: Uint8Array, { writer, checkpoints, sources, repeats }: Sinks): Promise<void> {
    await writer.write(this.#chunks.offset(run.first), bytes)
    this.#books.received(peerId, bytes.length)
    this.#keep(run)
    checkpoints.written(run, bytes.length)
    for (const [copy, same] of repeats.of(run, bytes)) await this.#copy(copy, same, { writer, checkpoints })
    this.#report(sources.rates())
    await this.#room.add(bytes.length)
  }

  /** Writes to another place what this image has once already. */
  async #copy(chunk: number, bytes: Uint8Array, { writer, checkpoints }: Pick<Sinks, 'writer' | 'checkpoints'>): Promise<void> {
    await writer.write(this.#chunks.offset(chunk), bytes)
    this.#books.reused(this.#job.narHash, bytes.length)
    const run = { first: chunk, count: 1 }
    this.#keep(run)
    checkpoints.written(run, bytes.length)
    await this.#room.add(bytes.length)
  }

  /** Takes from this host what it has of the image, so that nobody need send it. */
  async #reuse(writer: TreeWriter, checkpoints: Checkpoints): Promise<void> {
    const { narHash, signal } = this.#job
    await reuseLocal(this.#context, {
      narHash, layout: this.layout, chunks: this.#chunks, writer, signal,
      isMissing: chunk => !this.#image.have.has(chunk),
      onProven: async (chunk, source) => {
        const [run, bytes] = [{ first: chunk, count: 1 }, this.#chunks.length(chunk)]
        if (source === 'zeros') this.#books.zeros(bytes)
        else this.#books.reused(source, bytes)
        this.#keep(run)
        checkpoints.written(run, bytes)
        if (source !== 'zeros') await this.#room.add(bytes)
      },
    })
    await copyOwn({
      chunks: this.#chunks,
      isMissing: chunk => !this.#image.have.has(chunk),
      read: chunk => readIfThere(this.#image.read({ first: chunk, count: 1 }, { signal })),
      write: (chunk, bytes) => this.#copy(chunk, bytes, { writer, checkpoints }),
    })
    this.#report(new Map())
  }

  /** The run is on disk. */
  #keep(run: ChunkRun): void {
    this.#image.add(run)
    this.#bytes += runBytes(this.#chunks, run)
    const before = this.#frontier
    while (this.#frontier < this.#chunks.count && this.#image.have.has(this.#frontier)) this.#frontier += 1
    if (this.#frontier > before) this.#follower?.advance(this.#complete)
    this.#tell()
  }

  /** Bytes from the start of the NAR that are on disk without a gap. */
  get #complete(): number {
    return this.#chunks.offset(this.#frontier)
  }

  /** Tells the fleet, once there is something to give. */
  #tell(): void {
    const isReceiving = this.#context.receiving.get(this.#job.narHash) === this.#image
    if (this.#isAnnounced || !isReceiving || this.#image.have.size === 0) return
    this.#isAnnounced = true
    const row = this.#context.catalog.get(this.#job.narHash)
    if (row !== undefined) this.#context.announcer.announceReceiving(row)
  }

  #start(): void {
    const { catalog } = this.#context
    const { narHash } = this.#job
    if (catalog.get(narHash)?.state === 'wanted') catalog.transition(narHash, 'start', { reason: `receiving in chunks, from byte ${this.#bytes} on` })
    this.#report(new Map())
  }

  #report(rates: ReadonlyMap<string, number>): void {
    const peers = this.#books.bytesPerPeer().map(share => ({ ...share, bytesPerSecond: rates.get(share.peerId) ?? 0 }))
    this.#job.report({ phase: 'receiving', bytes: this.#bytes, totalBytes: this.layout.narSize, peers })
  }

  #snapshot() {
    return encodeProgress({ word: this.#word, proven: this.#image.have, books: this.#books.keep() }, this.#bytes)
  }
}
