import { isNarvikError, messageOf, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { MAX_PACK_BYTES, MAX_PACKED_NAR_BYTES, MAX_PACKED_NARS } from '../limits.ts'
import { fetchClosurePaths, fetchNars } from '../p2p/closure/client.ts'
import type { ClosurePath } from '../p2p/protocol.ts'
import type { Provider } from '../p2p/router.ts'
import type { ImageRow, Registration } from '../store/image-row.ts'
import { judgeTrust } from '../verify/trust.ts'
import { findClosure, memberOf } from './closure.ts'
import type { TaskContext } from './context.ts'
import { fetchImage, isPeersFault, resolveImage, type FetchRequest } from './fetch-image.ts'
import type { Progress } from './jobs.ts'
import { nameImage } from './name-image.ts'
import { Providers } from './providers.ts'
import { receivePacked } from './receive-packed.ts'
import { checkName, lookUp } from './refs.ts'
import { admit, trustQuestion } from './trust.ts'

/**
 * Brings an image with everything that it refers to and that is not here: dependencies first, the image itself last.
 * What is small comes packed, many in one exchange; what is large comes as a fetch of its own. When it ends early, what
 * was verified stays, and the next call goes on from there.
 */
export async function fetchClosure(context: TaskContext, request: FetchRequest): Promise<ImageRow> {
  const { narHash, askedBy } = resolveImage(context, request.ref)
  if (request.name !== undefined) checkName(context.catalog, request.name, narHash)
  const timeout = request.timeoutSeconds === undefined ? [] : [AbortSignal.timeout(request.timeoutSeconds * 1000)]
  const signal = AbortSignal.any([...timeout, ...request.signal === undefined ? [] : [request.signal]])
  try {
    if (!await isWhole(context, narHash)) {
      using fetch = new ClosureFetch(context, narHash, { ...request, signal })
      await fetch.run()
    }
  } catch (error) {
    if (timeout[0]?.aborted !== true) throw error
    throw new NarvikError('timed-out', `Cannot fetch the closure of ${narHash.toSri()} in ${String(request.timeoutSeconds)} s: ${messageOf(error)}`, { hint: 'What was verified is kept; fetch it again to go on', cause: error })
  }
  const row = context.catalog.get(narHash)
  if (row === undefined) throw new NarvikError('not-found', `Cannot fetch ${narHash.toSri()}: it was removed meanwhile`)
  return nameImage(context, await admit(context, row, askedBy), request.name)
}

async function isWhole({ catalog }: TaskContext, narHash: NarHash): Promise<boolean> {
  const row = catalog.get(narHash)
  const root = row?.state === 'verified' ? memberOf(catalog, row) : undefined
  return root !== undefined && (await findClosure(catalog, root)).missing.length === 0
}

class ClosureFetch {
  readonly #context: TaskContext
  readonly #narHash: NarHash
  readonly #request: FetchRequest & { readonly signal: AbortSignal }
  readonly #providers: Providers
  readonly #claim: string
  /** Keeps what is here already until the image that needs it is here as well. */
  readonly #held = new DisposableStack()
  #provider: Provider | undefined
  /** Numbers of the paths that are not here yet, ascending: dependencies first. */
  #left: number[] = []
  #paths: readonly ClosurePath[] = []
  #bytes = 0
  #total = 0

  constructor(context: TaskContext, narHash: NarHash, request: FetchRequest & { readonly signal: AbortSignal }) {
    this.#context = context
    this.#narHash = narHash
    this.#request = request
    this.#claim = `closure ${narHash.toNix32()}`
    this.#providers = new Providers(context, { narHash, waitMs: context.settings.providerWaitMs, signal: request.signal })
  }

  [Symbol.dispose](): void {
    this.#providers.close()
    this.#context.space.release(this.#claim)
    this.#held.dispose()
  }

  async run(): Promise<void> {
    await this.#describe()
    while (this.#left.length > 0) {
      this.#request.signal.throwIfAborted()
      await this.#context.space.untilRoom({ signal: this.#request.signal, onPause: reason => { if (reason !== null) this.#report([], 0, 'paused') } })
      await this.#claimRoom()
      const before = this.#left.length
      const pack = this.#nextPack()
      const refused = pack.length > 1 ? await this.#receiveInTurn(pack) : undefined
      if (refused !== undefined) await this.#fetchOne(refused)
      // What is large, alone, or not to be had from this provider, is looked for like any other image.
      if (this.#left.length === before) await this.#fetchOne(this.#left[0] ?? 0)
    }
  }

  /** Asks providers, one after the other, until one has the whole closure. */
  async #describe(): Promise<void> {
    for (;;) {
      const provider = await this.#providers.next()
      try {
        const answer = await fetchClosurePaths(this.#context.node, provider.peerId, this.#narHash, { signal: this.#request.signal })
        if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot ask ${provider.peerId} for the closure of ${this.#narHash.toSri()}: it answers ${answer.status}`)
        this.#provider = provider
        this.#paths = answer.paths
        break
      } catch (error) {
        this.#request.signal.throwIfAborted()
        if (!isPeersFault(error)) throw error
        this.#providers.failed(provider, messageOf(error))
      }
    }
    this.#left = await this.#unsettled(this.#paths.map((_path, number) => number))
    this.#total = this.#left.reduce((sum, number) => sum + this.#at(number).narSize, 0)
    await this.#claimRoom()
  }

  /** Small NARs whose dependencies are here, or come before them in the same pack. */
  #nextPack(): number[] {
    const here = new Set(this.#left)
    const pack: number[] = []
    let bytes = 0
    for (const number of this.#left) {
      const { narSize, references } = this.#at(number)
      const waits = references.some(reference => reference !== number && here.has(reference))
      if (waits || !this.#isPackable(number)) continue
      if (pack.length >= MAX_PACKED_NARS || bytes + narSize > MAX_PACK_BYTES) break
      here.delete(number)
      pack.push(number)
      bytes += narSize
    }
    return pack
  }

  /** Whether it is small, and nobody else is at it. */
  #isPackable(number: number): boolean {
    const { narHash, narSize } = this.#at(number)
    const state = this.#context.catalog.get(narHash)?.state
    return narSize <= MAX_PACKED_NAR_BYTES && this.#context.jobs.find(narHash) === undefined && (state === undefined || state === 'wanted' || state === 'rejected')
  }

  /** A pack waits for its turn like an image. Answers with the path that the policy refused with what came with it, where there is one. */
  async #receiveInTurn(pack: readonly number[]): Promise<number | undefined> {
    const { queue, catalog } = this.#context
    const priority = this.#request.priority ?? catalog.get(this.#narHash)?.priority ?? 0
    using _turn = await queue.enter(this.#narHash, { priority, signal: this.#request.signal, onWait: () => { this.#report([], 0, 'queued') } })
    return await this.#receive(pack)
  }

  async #receive(pack: readonly number[]): Promise<number | undefined> {
    const provider = this.#provider ?? await this.#providers.next()
    this.#provider = undefined
    let asked = 0
    try {
      const wanted = pack.map(number => this.#at(number))
      const { settings, node } = this.#context
      const answer = await fetchNars(node, provider.peerId, wanted, { signal: this.#request.signal, stallMs: settings.stallMs })
      if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot receive from ${provider.peerId}: it answers ${answer.status}`)
      let index = 0
      for await (const nar of answer.nars) {
        const number = pack[index++] ?? 0
        asked = number
        if (nar !== null) await this.#receiveOne(number, nar, provider)
      }
      this.#provider = provider
    } catch (error) {
      this.#request.signal.throwIfAborted()
      // Its bytes are right and here, and only this host's policy is against it: other providers are asked for signatures.
      if (isNarvikError(error, 'refused')) {
        this.#provider = provider
        return asked
      }
      if (!isPeersFault(error)) throw error
      this.#providers.failed(provider, messageOf(error))
      await this.#checkRejected(pack, error)
    }
    this.#left = await this.#unsettled(this.#left)
    return undefined
  }

  /** Bytes that are proven wrong are the end, where nobody else may have the right ones. */
  async #checkRejected(pack: readonly number[], cause: unknown): Promise<void> {
    const rejected = pack.map(number => this.#context.catalog.get(this.#at(number).narHash)).find(row => row?.state === 'rejected')
    if (rejected === undefined || await this.#providers.hasNext()) return
    throw new NarvikError('verification-failed', `Cannot fetch the closure of ${this.#narHash.toSri()}: found ${rejected.narHash.toSri()} rejected: ${rejected.reason ?? 'it failed verification'}`, {
      hint: 'It is kept in quarantine with its evidence, see `narvik show`; fetching the closure again goes on from there', cause,
    })
  }

  async #receiveOne(number: number, nar: AsyncIterable<Uint8Array>, provider: Provider): Promise<void> {
    const path = this.#at(number)
    // The same contents may have come under another path of this pack.
    if (!this.#isPackable(number)) return
    const metadata = { ...path, name: null, references: this.#referencesOf(path) }
    const counted = this.#counting(nar, provider)
    await receivePacked(this.#context, { metadata, nar: counted, peerId: provider.peerId, name: this.#nameOf(number), signal: this.#request.signal })
    if (this.#context.catalog.get(path.narHash)?.state === 'verified') this.#providers.progressed()
  }

  async* #counting(nar: AsyncIterable<Uint8Array>, { peerId }: Provider): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const bytes of nar) {
      this.#bytes += bytes.byteLength
      this.#report([{ peerId, bytes: this.#bytes }])
      yield bytes
    }
  }

  async #fetchOne(number: number): Promise<void> {
    const { narHash, narSize } = this.#at(number)
    await this.#claimRoom({ without: number })
    await fetchImage(this.#context, {
      ref: { kind: 'nar-hash', narHash }, name: this.#nameOf(number), priority: this.#request.priority, signal: this.#request.signal,
      onProgress: ({ bytes, phase, peers }) => { if (phase === 'receiving') this.#report(peers, bytes) },
    })
    this.#bytes += narSize
    this.#left = await this.#unsettled(this.#left)
  }

  /** Those that are not here yet. */
  async #unsettled(numbers: readonly number[]): Promise<number[]> {
    const left: number[] = []
    for (const number of numbers) {
      if (await this.#settle(number)) this.#held.use(this.#context.uses.hold(this.#at(number).narHash))
      else left.push(number)
    }
    return left
  }

  /** Whether the path is verified here; if so it is also known under this path. */
  async #settle(number: number): Promise<boolean> {
    const path = this.#at(number)
    const { catalog } = this.#context
    const row = catalog.get(path.narHash)
    if (row?.state !== 'verified') return lookUp(catalog, { kind: 'store-path', storePath: path.storePath })?.state === 'verified' && number !== this.#paths.length - 1
    const { storePath, deriver, ca, signatures } = path
    const known = catalog.registrations(row.narHash).find(one => one.storePath === storePath)
    if (storePath === row.storePath || (known !== undefined && known.vouchedBy !== null)) return true
    const registration = { storePath, deriver, ca, signatures, references: this.#referencesOf(path) }
    const vouchedBy = await this.#judge(row, registration)
    // A claim is not replaced by another one; nor is anything put down of an image that went meanwhile.
    if ((known === undefined || vouchedBy !== null) && catalog.get(row.narHash) !== undefined) catalog.addStorePath(row.narHash, { ...registration, vouchedBy })
    return true
  }

  /** Who vouches for a further path of a verified image: a peer says so, and what was measured of the image is known. */
  async #judge(row: ImageRow, said: Omit<Registration, 'vouchedBy'>): Promise<Registration['vouchedBy']> {
    const { settings, content } = this.#context
    const tree = content.visiblePath(row)
    if (tree === null || row.narSize === null) return null
    const question = trustQuestion(settings.trust, said, { askedBy: 'nar-hash', local: false })
    const { vouchedBy } = await judgeTrust(question, { tree, narHash: row.narHash, narSize: row.narSize }, { signal: this.#request.signal })
    return vouchedBy
  }

  #referencesOf({ references }: ClosurePath): string[] {
    return references.map(reference => this.#at(reference).storePath).sort()
  }

  #nameOf(number: number): string | undefined {
    return number === this.#paths.length - 1 ? this.#request.name : undefined
  }

  #at(number: number): ClosurePath {
    const path = this.#paths[number]
    if (path === undefined) throw new NarvikError('internal', `Cannot go on: found no path ${number} in a closure of ${this.#paths.length}`)
    return path
  }

  #report(peers: readonly { readonly peerId: string, readonly bytes: number }[], more = 0, phase: Progress['phase'] = 'receiving'): void {
    this.#request.onProgress?.({ narHash: this.#narHash.toSri(), phase, bytes: this.#bytes + more, totalBytes: this.#total, bytesPerSecond: 0, peers })
  }

  /** Claims room for what is left; a path that is fetched by itself claims its own. */
  async #claimRoom({ without }: { without?: number } = {}): Promise<void> {
    const bytes = this.#left.reduce((sum, number) => sum + (number === without ? 0 : this.#at(number).narSize), 0)
    await this.#context.space.claim(this.#claim, bytes, { signal: this.#request.signal })
  }
}
