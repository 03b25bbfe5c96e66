import { isNarvikError, messageOf, NarvikError } from '../errors.ts'
import { isPolicyRefusal } from '../image/verdict.ts'
import { MAX_BUFFERED_NAR_BYTES, MAX_CLOSURE_FETCHES, MAX_PACK_BYTES, MAX_PACKED_NAR_BYTES, MAX_PACKED_NARS, MAX_SETTLED_TOGETHER, MAX_UNPACKED_BYTES, MIN_UNPACKED_BYTES } from '../limits.ts'
import { fetchClosurePaths, fetchNars } from '../p2p/closure/client.ts'
import type { ClosurePath } from '../p2p/protocol.ts'
import type { Provider } from '../p2p/router.ts'
import type { ImageRow } from '../store/image-row.ts'
import { batching } from './batching.ts'
import { ClosurePlan } from './closure-plan.ts'
import type { TaskContext } from './context.ts'
import { fetchImage, isPeersFault } from './fetch-image.ts'
import type { Job } from './jobs.ts'
import { knowPath, referencesOf } from './know-path.ts'
import { Providers } from './providers.ts'
import { quarantineParcels } from './quarantine-parcels.ts'
import { receivePacked, type Parcel } from './receive-packed.ts'
import { Room } from './room.ts'
import { settleAll, type Proven } from './settle.ts'

/** A path that was received and proven, and waits until all that it refers to is here. */
interface Waiting {
  readonly proven: Proven
  readonly pass: (row: ImageRow) => void
  readonly fail: (error: unknown) => void
}

/**
 * One fetch of a closure. What is small comes packed, many in one exchange, and is unpacked and proven several at a time, in whatever order. What
 * is large comes after it, as a fetch of its own, once all that it refers to is here: either fills the line, and both at once would hold the
 * threads and buffers of both. All of it is let in dependencies first.
 */
export class ClosureFetch {
  readonly #context: TaskContext
  readonly #job: Job<unknown>
  readonly #signal: AbortSignal
  readonly #ending = new AbortController()
  readonly #providers: Providers
  readonly #claim: string
  /** Keeps what is here already until the image that needs it is here as well. */
  readonly #held = new DisposableStack()
  readonly #quarantine: (parcel: Parcel) => Promise<ImageRow>
  readonly #room = new Room(MAX_UNPACKED_BYTES)
  readonly #waiting = new Map<number, Waiting>()
  /** Paths that are looked for like any other image: they are large, or not to be had packed. */
  readonly #single = new Set<number>()
  /** The first path with some contents, by nix32, and the further ones, which have nothing to receive. */
  readonly #firsts = new Map<string, number>()
  readonly #twins = new Map<number, number[]>()
  #plan = new ClosurePlan([])
  #paths: readonly ClosurePath[] = []
  #provider: Provider | undefined
  #fetching = 0
  #isLettingIn = false
  #arePacksOver = false
  #bytes = 0
  #total = 0
  /** What is under way; the first failure ends all of it. */
  readonly #tasks = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  constructor(context: TaskContext, job: Job<unknown>) {
    this.#context = context
    this.#job = job
    this.#claim = `closure ${job.narHash.toNix32()}`
    this.#signal = AbortSignal.any([job.signal, this.#ending.signal])
    this.#providers = new Providers(context, { narHash: job.narHash, waitMs: context.settings.providerWaitMs, signal: this.#signal })
    this.#quarantine = batching(parcels => quarantineParcels(context, parcels), { most: MAX_SETTLED_TOGETHER })
  }

  /** Resolves when all of it is verified here. */
  async run(): Promise<void> {
    try {
      await this.#describe()
      await this.#lookAround()
      await this.#claimRoom()
      this.#start(this.#receivePacks())
      while (this.#tasks.size > 0) await Promise.all(this.#tasks)
    } finally {
      this.#providers.close()
      this.#context.space.release(this.#claim)
      this.#held.dispose()
    }
    if (this.#failure !== undefined) throw this.#failure.error
    if (this.#plan.left > 0) throw new NarvikError('internal', `Cannot fetch the closure of ${this.#job.narHash.toSri()}: found ${this.#plan.left} paths left, needed none`)
  }

  #start(work: Promise<void>): void {
    const task: Promise<void> = work.catch((error: unknown) => {
      this.#failure ??= { error }
      this.#ending.abort(error)
    }).finally(() => this.#tasks.delete(task))
    this.#tasks.add(task)
  }

  /** Asks providers, one after the other, until one has the whole closure. */
  async #describe(): Promise<void> {
    const { narHash } = this.#job
    for (;;) {
      const provider = await this.#providers.next()
      try {
        const answer = await fetchClosurePaths(this.#context.node, provider.peerId, narHash, { signal: this.#signal })
        if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot ask ${provider.peerId} for the closure of ${narHash.toSri()}: it answers ${answer.status}`)
        this.#provider = provider
        this.#paths = answer.paths
        return
      } catch (error) {
        this.#signal.throwIfAborted()
        if (!isPeersFault(error)) throw error
        this.#providers.failed(provider, messageOf(error))
      }
    }
  }

  /** Finds out what is here already. */
  async #lookAround(): Promise<void> {
    this.#plan = new ClosurePlan(this.#paths.map(({ references }) => references))
    for (const [number, path] of this.#paths.entries()) {
      this.#held.use(this.#context.uses.hold(path.narHash))
      if (await this.#know(number)) {
        this.#plan.settle(number)
        continue
      }
      const key = path.narHash.toNix32()
      const first = this.#firsts.get(key)
      if (first === undefined) this.#firsts.set(key, number)
      else this.#twins.set(first, [...this.#twins.get(first) ?? [], number])
      if (first === undefined) this.#total += path.narSize
    }
  }

  /** Claims room for what is to come packed; what is large claims its own, and what is in quarantine is counted there. */
  async #claimRoom(): Promise<void> {
    const { catalog, space } = this.#context
    const isToCome = (state: ImageRow['state'] | undefined): boolean => state !== 'verified' && state !== 'quarantined'
    const missing = this.#paths.filter(({ narHash, narSize }) => narSize <= MAX_PACKED_NAR_BYTES && isToCome(catalog.get(narHash)?.state))
    await space.claim(this.#claim, missing.reduce((sum, { narSize }) => sum + narSize, 0), { signal: this.#signal })
  }

  async #receivePacks(): Promise<void> {
    for (let pack = this.#nextPack(); pack.length > 0; pack = this.#nextPack()) {
      this.#signal.throwIfAborted()
      await this.#context.space.untilRoom({ signal: this.#signal, onPause: reason => { this.#job.report({ phase: reason === null ? 'receiving' : 'paused' }) } })
      await this.#claimRoom()
      const provider = this.#provider ?? await this.#providers.next()
      this.#provider = undefined
      try {
        await this.#receive(pack, provider)
        this.#provider = provider
      } catch (error) {
        this.#signal.throwIfAborted()
        if (!isPeersFault(error)) throw error
        this.#providers.failed(provider, messageOf(error))
        await this.#checkRejected(pack, error)
      }
    }
    this.#arePacksOver = true
    this.#context.space.release(this.#claim)
    this.#fetchSingles()
  }

  /** Small NARs that are not here, in the order of the closure; what they refer to may come after them, or beside them. */
  #nextPack(): number[] {
    const pack: number[] = []
    let bytes = 0
    for (const number of this.#firsts.values()) {
      if (!this.#plan.isAbsent(number) || this.#single.has(number)) continue
      const { narSize } = this.#at(number)
      if (!this.#isPackable(number)) {
        this.#single.add(number)
        continue
      }
      if (pack.length >= MAX_PACKED_NARS || bytes + narSize > MAX_PACK_BYTES) break
      pack.push(number)
      bytes += narSize
    }
    return pack
  }

  /** Whether it is small, nobody else is at it, and none of its bytes are here that could still be right. */
  #isPackable(number: number): boolean {
    const { catalog, jobs } = this.#context
    const { narHash, narSize } = this.#at(number)
    if (narSize > MAX_PACKED_NAR_BYTES || jobs.find(narHash) !== undefined) return false
    const state = catalog.get(narHash)?.state
    if (state !== 'rejected') return state === undefined || state === 'wanted'
    const verdict = catalog.journal(narHash).findLast(({ event }) => event === 'fail')?.evidence?.verdict
    return verdict === undefined || !isPolicyRefusal(verdict)
  }

  /** Receives one pack; when it ends, all that has come of it is in quarantine. What the provider leaves out is looked for elsewhere. */
  async #receive(pack: readonly number[], provider: Provider): Promise<void> {
    const { settings, node } = this.#context
    const failing = new AbortController()
    const signal = AbortSignal.any([this.#signal, failing.signal])
    const under: Promise<void>[] = []
    const fail = (error: unknown): void => { failing.abort(error) }
    try {
      const answer = await fetchNars(node, provider.peerId, pack.map(number => this.#at(number)), { signal, stallMs: settings.stallMs })
      if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot receive from ${provider.peerId}: it answers ${answer.status}`)
      let index = 0
      for await (const nar of answer.nars) {
        const number = pack[index++] ?? 0
        if (nar === null) this.#single.add(number)
        else await this.#take(number, nar, provider, { onTask: task => { under.push(task.catch(fail)) } })
      }
    } catch (error) {
      fail(error)
    }
    await Promise.all(under)
    failing.signal.throwIfAborted()
  }

  /** Resolves when the bytes have been taken; `onTask` is given what goes on until they are in quarantine. */
  async #take(number: number, nar: AsyncIterable<Uint8Array>, provider: Provider, { onTask }: { onTask: (task: Promise<void>) => void }): Promise<void> {
    const { narSize } = this.#at(number)
    const release = await this.#room.take(Math.max(narSize, MIN_UNPACKED_BYTES))
    const counted = this.#counting(nar, provider)
    if (narSize > MAX_BUFFERED_NAR_BYTES) {
      const task = this.#unpack(number, counted, provider).finally(release)
      onTask(task)
      await task.catch(() => undefined)
      return
    }
    const bytes = await collect(counted, narSize).catch((error: unknown) => {
      release()
      throw error
    })
    onTask(this.#unpack(number, bytes, provider).finally(release))
  }

  /** Resolves when it is in quarantine, proven; from there on it is on its own. */
  #unpack(number: number, nar: Uint8Array<ArrayBuffer> | AsyncIterable<Uint8Array>, { peerId }: Provider): Promise<void> {
    const arrived = Promise.withResolvers<undefined>()
    let hasArrived = false
    const pass = (proven: Proven): Promise<ImageRow> => {
      hasArrived = true
      arrived.resolve(undefined)
      return this.#letInLater(number, proven)
    }
    const metadata = { ...this.#at(number), name: null, references: referencesOf(this.#paths, this.#at(number)) }
    this.#start(receivePacked(this.#context, { metadata, nar, peerId, signal: this.#signal, quarantine: this.#quarantine, pass }).then(() => undefined, (error: unknown) => {
      if (hasArrived) throw error
      // Its bytes are right and here, and only this host's policy is against it: other providers are asked for signatures.
      if (!isNarvikError(error, 'refused')) arrived.reject(error)
      else {
        this.#single.add(number)
        arrived.resolve(undefined)
        this.#fetchSingles()
      }
    }))
    return arrived.promise
  }

  #letInLater(number: number, proven: Proven): Promise<ImageRow> {
    return new Promise((pass, fail) => {
      this.#waiting.set(number, { proven, pass, fail })
      this.#plan.arrive(number)
      this.#letIn()
    })
  }

  #letIn(): void {
    if (!this.#isLettingIn) this.#start(this.#letAllIn())
  }

  async #letAllIn(): Promise<void> {
    this.#isLettingIn = true
    try {
      for (let group = this.#plan.takeReady(MAX_SETTLED_TOGETHER); group.length > 0; group = this.#plan.takeReady(MAX_SETTLED_TOGETHER)) await this.#letGroupIn(group)
    } finally {
      this.#isLettingIn = false
    }
    this.#fetchSingles()
  }

  async #letGroupIn(group: readonly number[]): Promise<void> {
    const waiting = group.map(number => this.#waiting.get(number)).filter(one => one !== undefined)
    try {
      const rows = await settleAll(this.#context, waiting.map(({ proven }) => proven))
      for (const [index, row] of rows.entries()) waiting[index]?.pass(row)
    } catch (error) {
      for (const { fail } of waiting) fail(error)
      throw error
    }
    for (const number of group) {
      this.#waiting.delete(number)
      await this.#settled(number)
    }
    this.#providers.progressed()
  }

  /** Its contents are verified here: it is known under this path, and so may those paths be that have the same contents. */
  async #settled(number: number): Promise<void> {
    await this.#know(number)
    for (const twin of this.#twins.get(number) ?? []) this.#plan.arrive(twin)
  }

  /** Begins with paths that come by themselves, a few at once, as soon as all that they refer to is here. */
  #fetchSingles(): void {
    if (!this.#arePacksOver) return
    for (const number of this.#single) {
      if (this.#fetching >= MAX_CLOSURE_FETCHES) return
      if (!this.#plan.isAbsent(number) || !this.#plan.isFree(number)) continue
      this.#single.delete(number)
      this.#fetching++
      this.#start(this.#fetchSingle(number))
    }
  }

  async #fetchSingle(number: number): Promise<void> {
    const { narHash, narSize } = this.#at(number)
    await fetchImage(this.#context, {
      ref: { kind: 'nar-hash', narHash }, signal: this.#signal,
      onProgress: ({ bytes, phase, peers }) => { if (phase === 'receiving') this.#report(peers, bytes) },
    })
    this.#bytes += narSize
    this.#fetching--
    this.#plan.settle(number)
    await this.#settled(number)
    this.#letIn()
    this.#fetchSingles()
  }

  /** Bytes that are proven wrong are the end, where nobody else may have the right ones. */
  async #checkRejected(pack: readonly number[], cause: unknown): Promise<void> {
    const rejected = pack.map(number => this.#context.catalog.get(this.#at(number).narHash)).find(row => row?.state === 'rejected')
    if (rejected === undefined || await this.#providers.hasNext()) return
    throw new NarvikError('verification-failed', `Cannot fetch the closure of ${this.#job.narHash.toSri()}: found ${rejected.narHash.toSri()} rejected: ${rejected.reason ?? 'it failed verification'}`, {
      hint: 'It is kept in quarantine with its evidence, see `narvik show`; fetching the closure again goes on from there', cause,
    })
  }

  /** Whether the path is verified here; if so it is also known under this path. */
  async #know(number: number): Promise<boolean> {
    return knowPath(this.#context, this.#paths, { number, signal: this.#signal })
  }

  async* #counting(nar: AsyncIterable<Uint8Array>, { peerId }: Provider): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const bytes of nar) {
      this.#bytes += bytes.byteLength
      this.#report([{ peerId, bytes: this.#bytes }])
      yield bytes
    }
  }

  #at(number: number): ClosurePath {
    const path = this.#paths[number]
    if (path === undefined) throw new NarvikError('internal', `Cannot go on: found no path ${number} in a closure of ${this.#paths.length}`)
    return path
  }

  #report(peers: readonly { readonly peerId: string, readonly bytes: number }[], more = 0): void {
    this.#job.report({ phase: 'receiving', bytes: this.#bytes + more, totalBytes: this.#total, peers })
  }
}

async function collect(nar: AsyncIterable<Uint8Array>, size: number): Promise<Uint8Array<ArrayBuffer>> {
  const all = new Uint8Array(size)
  let filled = 0
  for await (const bytes of nar) {
    all.set(bytes, filled)
    filled += bytes.byteLength
  }
  return all
}
