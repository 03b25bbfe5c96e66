import { setTimeout as delay } from 'node:timers/promises'
import { isNarvikError, NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { PeerShare } from '../image/verdict.ts'
import { DIAL_TIMEOUT_MS, MAX_KNOWN_PROVIDERS, MAX_SWARM_SOURCES, MAX_TOLD_FAILURES } from '../limits.ts'
import type { Provider } from '../p2p/router.ts'
import type { TaskContext } from './context.ts'

export interface ProvidersInit {
  readonly narHash: NarHash
  /** Milliseconds without a usable provider after which `next` gives up. */
  readonly waitMs: number
  readonly signal: AbortSignal
}

/** Whether a peer is not wanted now. */
type Except = (peerId: string) => boolean
const NOBODY: Except = () => false
/** Milliseconds from one look-up to the next while there is no provider to try; they double from the first to the last, and are more where others move the image on. */
const LOOK_UP_INTERVAL_MS = { first: 500, last: 8000, served: 30_000 }
/** Milliseconds after which a look-up is made again though providers are known, where this host is connected to none of them: anybody can name those. */
const DOUBTED_MS = 2000

/** Providers without a signed record that are still tried when the time is up: those that are made up would never come to an end. */
const LATE_PROVIDERS = 4
/** The same of those with one, that this host is not connected to: an identity to sign with costs no more than a key. One round of sources. */
const LATE_SIGNED_PROVIDERS = MAX_SWARM_SOURCES
/** Milliseconds from the first that is tried when the time is up until no more are: those that are made up and never answer take as long as a dial may, each. */
const LATE_MS = 2 * DIAL_TIMEOUT_MS

/**
 * The providers of one image, one at a time, for one fetch: those that failed come last, those that lied never.
 */
export class Providers {
  readonly #node: TaskContext['node']
  readonly #init: ProvidersInit
  readonly #known = new Map<string, Provider>()
  readonly #failures = new Map<string, string>()
  readonly #excluded = new Set<string>()
  readonly #lies = new Map<string, string>()
  readonly #tried = new Set<string>()
  readonly #closed = new AbortController()
  #deadline: number
  /** Providers that were tried when the time was up, and when that is over as well. */
  #late = newLate()
  #lookedUpAt = -Infinity
  #looking: Promise<void> | undefined
  /** Resolves when the look-up under way has found one more. */
  #news = Promise.withResolvers<undefined>()

  constructor({ node }: Pick<TaskContext, 'node'>, init: ProvidersInit) {
    this.#node = node
    this.#init = init
    this.#deadline = performance.now() + init.waitMs
  }

  /**
   * The next provider to try that is not among those `except`ed; waits for one to appear. While the image `isServed` by others, it is looked for less
   * often.
   * @throws NarvikError `no-provider` when none has moved the image on for `waitMs`, saying what the known ones did.
   */
  async next({ except = NOBODY, isServed = () => false }: { except?: Except, isServed?: () => boolean } = {}): Promise<Provider> {
    for (let pause = LOOK_UP_INTERVAL_MS.first; ; pause = isServed() ? LOOK_UP_INTERVAL_MS.first : Math.min(2 * pause, LOOK_UP_INTERVAL_MS.last)) {
      const known = this.#untried(except)
      const found = this.#isLookUpDue(known, isServed()) ? await this.#lookUp(except) : known
      const left = this.#deadline - performance.now()
      if (found !== undefined && (left > 0 || this.#isTriedLate(found))) {
        this.#tried.add(found.peerId)
        return found
      }
      if (left <= 0) throw this.#none()
      // The next round may try again whoever failed in this one.
      this.#tried.clear()
      await this.#pause(Math.min(pause, left))
    }
  }

  /** Whether there is one to try; false where none has come in time: there may still be what this host has itself. */
  async untilSome(): Promise<boolean> {
    try {
      await this.next()
      return true
    } catch (error) {
      if (!isNarvikError(error, 'no-provider')) throw error
      return false
    }
  }

  /** Whether the peer may be asked at all. */
  isWelcome(peerId: string): boolean {
    return !this.#excluded.has(peerId) && !this.#node.isBanned(peerId)
  }

  /** Whether there is a provider that was neither excluded nor tried in this round. */
  async hasNext(): Promise<boolean> {
    return (this.#untried() ?? await this.#lookUp()) !== undefined
  }

  /** Whether another provider than those tried is known, without looking for one. */
  hasSpare(): boolean {
    return this.#untried() !== undefined
  }

  failed({ peerId }: Pick<Provider, 'peerId'>, reason: string): void {
    this.#failures.delete(peerId)
    this.#failures.set(peerId, reason)
    dropOldest(this.#failures, MAX_TOLD_FAILURES)
  }

  /** Why a peer that was proven to lie is not asked again. */
  lied(peerId: string, detail: string): void {
    this.#excluded.add(peerId)
    this.#lies.set(peerId, detail)
  }

  /** A provider has moved the image on: the wait for the next one begins anew. */
  progressed(): void {
    this.#deadline = performance.now() + this.#init.waitMs
    this.#late = newLate()
  }

  /** Every provider that is not excluded may be tried again. */
  startOver(): void {
    this.#tried.clear()
  }

  exclude(peerIds: Iterable<string>): void {
    for (const peerId of peerIds) this.#excluded.add(peerId)
  }

  /** Ends the looking that goes on in the background. */
  close(): void {
    this.#closed.abort()
  }

  /** Who failed and how, for the evidence. */
  shares(): PeerShare[] {
    const lies = Array.from(this.#lies, ([peerId, detail]) => ({ peerId, bytes: 0, outcome: 'lied' as const, detail }))
    const failures = Array.from(this.#failures, ([peerId, detail]) => ({ peerId, bytes: 0, outcome: 'failed' as const, detail }))
    return [...lies, ...failures.filter(({ peerId }) => !this.#lies.has(peerId))]
  }

  async #pause(milliseconds: number): Promise<void> {
    const { signal } = this.#init
    await delay(milliseconds, undefined, { signal }).catch(() => { signal.throwIfAborted() })
  }

  /** The best one to try: made-up ones are neither connected to this host, which those that there are mostly are, nor cost more than a key to sign for. */
  #untried(except = NOBODY): Provider | undefined {
    const connected = this.#node.connectedPeers()
    const usable = [...this.#known.values()].filter(provider => this.#isUsable(provider, except))
    const rank = ({ peerId, record }: Provider): number => (connected.has(peerId) ? 2 : 0) + (record === undefined ? 0 : 1)
    return usable.reduce<Provider | undefined>((best, other) => best !== undefined && rank(best) >= rank(other) ? best : other, undefined)
  }

  /** While those that are known may be made up, others are looked for again and again, or these would take all of the time. When it is up, they are not. */
  #isLookUpDue(known: Provider | undefined, isServed: boolean): boolean {
    const age = performance.now() - this.#lookedUpAt
    if (known === undefined) return !isServed || age >= LOOK_UP_INTERVAL_MS.served
    return !isServed && age >= DOUBTED_MS && performance.now() < this.#deadline && !this.#node.connectedPeers().has(known.peerId)
  }

  /**
   * Answers with the first usable one that has signed that it holds the image; the others become known while that one is tried. Where nobody has,
   * with any other when the looking is over. There is one look-up at a time.
   */
  async #lookUp(except = NOBODY): Promise<Provider | undefined> {
    this.#looking ??= this.#askRouter().finally(() => {
      this.#looking = undefined
      this.#lookedUpAt = performance.now()
    })
    const over = this.#looking.then(() => true)
    for (let isOver = false; !isOver;) {
      isOver = await Promise.race([over, this.#news.promise.then(() => false)])
      this.#init.signal.throwIfAborted()
      const found = this.#untried(except)
      if (found?.record !== undefined) return found
    }
    return this.#untried(except)
  }

  async #askRouter(): Promise<void> {
    const { narHash, signal } = this.#init
    for await (const provider of this.#node.router.find(narHash, { signal: AbortSignal.any([signal, this.#closed.signal]) })) {
      // Those that were heard of last are the last to be forgotten.
      this.#known.delete(provider.peerId)
      this.#known.set(provider.peerId, provider)
      dropOldest(this.#known, MAX_KNOWN_PROVIDERS)
      this.#news.resolve(undefined)
      this.#news = Promise.withResolvers()
    }
  }

  /** Whether a provider is still tried when the time is up; counts those that are. */
  #isTriedLate({ peerId, record }: Provider): boolean {
    if (record !== undefined && this.#node.connectedPeers().has(peerId)) return true
    this.#late.until ??= performance.now() + LATE_MS
    if (performance.now() >= this.#late.until) return false
    return record === undefined ? this.#late.others++ < LATE_PROVIDERS : this.#late.signed++ < LATE_SIGNED_PROVIDERS
  }

  #isUsable({ peerId }: Provider, except: Except): boolean {
    return !this.#tried.has(peerId) && !except(peerId) && this.isWelcome(peerId)
  }

  #none(): NarvikError {
    const { narHash, waitMs } = this.#init
    const failures = Array.from(this.#failures, ([peerId, reason]) => `${peerId}: ${reason}`)
    const banned = [...this.#known.keys()].filter(peerId => this.#excluded.has(peerId) || this.#node.isBanned(peerId))
    const found = [...failures, ...banned.map(peerId => `${peerId} is banned`)].join('; ') || 'no peer that announces it'
    return new NarvikError('no-provider', `Cannot fetch ${narHash.toSri()}: found ${found} within ${waitMs / 1000} s, needed a provider`, {
      hint: 'Check the hash, and with `narvik peers` that the host that has it is connected',
    })
  }
}

function newLate(): { signed: number, others: number, until: number | undefined } {
  return { signed: 0, others: 0, until: undefined }
}

/** Leaves at most `most` entries, those that were added last. */
function dropOldest(map: Map<string, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return
    map.delete(key)
  }
}
