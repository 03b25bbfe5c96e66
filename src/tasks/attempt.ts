import { pipe } from 'it-pipe'
import { messageOf, NarvikError } from '../errors.ts'
import { Blake3 } from '../image/blake3.ts'
import { decodeManifest, manifestDigest } from '../image/manifest.ts'
import { FILE_BUFFER_BYTES } from '../limits.ts'
import { type FollowedTree, Follower } from '../nar/follower.ts'
import { Layout } from '../nar/layout.ts'
import { sealTree } from '../nar/seal.ts'
import { TreeWriter } from '../nar/tree-writer.ts'
import { fetchNar } from '../p2p/nar/client.ts'
import type { Provider } from '../p2p/router.ts'
import type { Claim } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import { claimsOf, type Introduction, prepare } from './introduction.ts'
import type { Job } from './jobs.ts'
import { exactly } from '../p2p/stages.ts'
import { gather } from './gather.ts'
import { claimRoom } from './space/claim-room.ts'
import { guardRoom } from './space/guard-room.ts'
import { guardPace } from './pace.ts'
import { bytesPerPeer, readProgress, type ReceiveProgress, type Run } from './receive-progress.ts'

/** Bytes between two points that a restart can take up. */
const CHECKPOINT_BYTES = 64 * 1024 * 1024

/**
 * One try at receiving an image in one stream, as small ones are, under one manifest: which bytes are there, who sent them, and the digest of what each
 * sent, so that a wrong byte can be laid at the right door later.
 */
export class Attempt {
  readonly kind = 'stream'
  readonly layout: Layout
  readonly #context: TaskContext
  readonly #job: Job<unknown>
  readonly #state: ReceiveProgress
  #writer: TreeWriter | undefined
  #follower: Follower | undefined
  #saving: Promise<void> = Promise.resolve()
  /** The byte of the NAR up to which the state is on its way to the disk. */
  #saved: number
  /** Bytes taken from each peer. */
  readonly #received: Map<string, number>
  #contradiction: { peerId: string, detail: string } | undefined

  private constructor(context: TaskContext, job: Job<unknown>, layout: Layout, state: ReceiveProgress) {
    this.#context = context
    this.#job = job
    this.layout = layout
    this.#state = state
    this.#saved = state.offset
    this.#received = bytesPerPeer(state.runs)
  }

  /** Takes up what an earlier run of the daemon has left on disk, if anything. */
  static async resume(context: TaskContext, job: Job<unknown>): Promise<Attempt | undefined> {
    const bytes = context.catalog.manifest(job.narHash)
    const state = readProgress(await context.content.readProgress(job.narHash))
    if (bytes === undefined || state?.manifestDigest !== manifestDigest(bytes)) return undefined
    const manifest = decodeManifest(bytes)
    const layout = Layout.describedBy(manifest)
    await claimRoom(context, job, { layout, chunks: manifest.chunks }, chunk => manifest.chunks.offset(chunk + 1) > state.offset)
    return new Attempt(context, job, layout, state)
  }

  /** Starts from the first byte, on the word of a provider. */
  static async begin(context: TaskContext, job: Job<unknown>, introduction: Introduction): Promise<Attempt> {
    await prepare(context, job, introduction)
    return new Attempt(context, job, introduction.layout, { ...introduction.word, offset: 0, runs: [] })
  }

  get runs(): readonly Run[] {
    return this.#state.runs
  }

  /** Bytes of the NAR that have arrived, from its start. */
  get offset(): number {
    return this.#state.offset
  }

  get isWhole(): boolean {
    return this.#state.offset === this.layout.narSize
  }

  get voucher(): string | null {
    return this.#state.voucher
  }

  get manifestDigest(): string {
    return this.#state.manifestDigest
  }

  /** A peer whose bytes contradict the manifest, where one did. */
  get contradiction(): { peerId: string, detail: string } | undefined {
    return this.#contradiction
  }

  /** Who sent bytes, in the order of their first one. */
  get peers(): string[] {
    return [...new Set(this.#state.runs.map(run => run.peerId))]
  }

  get claims(): Claim[] {
    return claimsOf(this.#state, this.#job.narHash, this.layout.narSize)
  }

  /**
   * Receives what is still missing from one provider. Bytes that contradict the manifest end the attempt instead of
   * failing it: what is on disk then goes to the verify pipeline as it is.
   */
  async receiveFrom(provider: Provider, { hasAlternative }: { hasAlternative: () => boolean }): Promise<void> {
    const { settings } = this.#context
    const length = this.layout.narSize - this.#state.offset
    await this.#openTree()
    const body = await this.#ask(provider, length)
    this.#start(`receiving from ${provider.peerId} at byte ${this.#state.offset}`)
    const pace = { windowMs: settings.stallMs, bytesPerSecond: settings.slowBytesPerSecond, hasAlternative }
    try {
      await pipe(body, guardPace(pace), exactly(length), guardRoom(() => this.#context.space.check({ signal: this.#job.signal })), gather(FILE_BUFFER_BYTES), source => this.#restore(source, provider.peerId))
    } finally {
      await this.#saving
    }
  }

  /** Goes on with an image of which every byte has arrived before; no provider is needed. */
  takeUp(): void {
    this.#start('every byte has arrived before')
  }

  /** Forgets what was received, so that the next provider starts from the first byte. */
  async abandon(): Promise<void> {
    await this.close()
    await this.#follower?.stop()
    await this.#context.content.discard(this.#job.narHash)
  }

  async close(): Promise<void> {
    const writer = this.#writer
    this.#writer = undefined
    // What is not going to be sealed need not be hashed any further.
    if (!this.isWhole || this.#contradiction !== undefined) await this.#follower?.stop()
    if (writer === undefined) return
    try {
      await this.#checkpoint(writer)
      await this.#saving
    } finally {
      await writer.close()
    }
  }

  /** Seals the tree, which is closed and goes to the verify pipeline; gives what it was found to be while it came, where that is still so. */
  async seal(options: { signal: AbortSignal, onProgress: (bytes: number) => void }): Promise<FollowedTree | undefined> {
    if (this.#follower !== undefined) return this.#follower.seal(options)
    await sealTree(this.#context.content.quarantineTree(this.#job.narHash))
    return undefined
  }

  async #openTree(): Promise<void> {
    const { content } = this.#context
    const { narHash, signal } = this.#job
    await content.begin(narHash)
    if (this.#writer !== undefined) return
    this.#writer = await TreeWriter.open(content.quarantineTree(narHash), this.layout, { signal })
    this.#follower = new Follower(this.#writer)
    this.#follower.advance(this.#state.offset)
  }

  async #ask({ peerId }: Provider, length: number): Promise<AsyncIterable<Uint8Array>> {
    const { node, settings } = this.#context
    const { narHash, signal } = this.#job
    const answer = await fetchNar(node, peerId, narHash, this.#state.offset, length, { signal, stallMs: settings.stallMs })
    if (answer.status === 'ok') return answer.body
    throw new NarvikError('peer-failed', `Cannot receive from ${peerId}: it answers ${answer.status}`)
  }

  /** The image is being received from here on: a provider has said that it sends. */
  #start(reason: string): void {
    const { catalog } = this.#context
    const { narHash } = this.#job
    if (catalog.get(narHash)?.state === 'wanted') catalog.transition(narHash, 'start', { reason })
    this.#report()
  }

  /** The last stage: digests and writes each buffer, in order. */
  async #restore(source: AsyncIterable<Uint8Array>, peerId: string): Promise<void> {
    const writer = this.#writer
    if (writer === undefined) throw new NarvikError('internal', 'Cannot write: the tree is not open')
    let run = this.#startRun(peerId)
    try {
      for await (const bytes of source) {
        await writer.write(this.#state.offset, bytes)
        run.digest.update(bytes)
        this.#state.offset += bytes.length
        this.#follower?.advance(this.#state.offset)
        this.#received.set(peerId, (this.#received.get(peerId) ?? 0) + bytes.length)
        this.#report()
        if (this.#state.offset - this.#saved < CHECKPOINT_BYTES) continue
        this.#endRun(run)
        await this.#checkpoint(writer)
        run = this.#startRun(peerId)
      }
    } catch (error) {
      if (!(error instanceof NarvikError) || error.code !== 'invalid-nar') throw error
      this.#contradiction = { peerId, detail: messageOf(error) }
    } finally {
      this.#endRun(run)
    }
  }

  #startRun(peerId: string): OpenRun {
    return { peerId, offset: this.#state.offset, digest: new Blake3() }
  }

  #endRun({ peerId, offset, digest }: OpenRun): void {
    const length = this.#state.offset - offset
    if (length > 0) this.#state.runs.push({ peerId, offset, length, digest: digest.hex() })
  }

  /** Saves how far the image has come, behind the bytes themselves, while the next ones arrive. */
  async #checkpoint(writer: TreeWriter): Promise<void> {
    await this.#saving
    const state = structuredClone(this.#state)
    this.#saved = state.offset
    this.#saving = writer.sync().then(() => this.#context.content.writeProgress(this.#job.narHash, { ...state }))
    // The next checkpoint, or the end of the stream, awaits it and sees its failure.
    this.#saving.catch(() => undefined)
  }

  #report(): void {
    const peers = Array.from(this.#received, ([peerId, bytes]) => ({ peerId, bytes }))
    this.#job.report({ phase: 'receiving', bytes: this.#state.offset, totalBytes: this.layout.narSize, peers })
  }
}

interface OpenRun {
  readonly peerId: string
  readonly offset: number
  readonly digest: Blake3
}
