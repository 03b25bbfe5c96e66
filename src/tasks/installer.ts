import { setImmediate } from 'node:timers/promises'
import { messageOf } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { memberAt, type Member } from './closure.ts'
import type { TaskContext } from './context.ts'
import { installEach, noteInstall } from './install-image.ts'

/**
 * Has the images that are fetched installed in the Nix store, where the policy says so: each as soon as all that it refers to is there.
 * One that can't be is as verified as before, and its note says why.
 */
export class Installer {
  readonly #context: TaskContext
  readonly #abort = new AbortController()
  readonly #unfollow: () => void
  readonly #waiting = new Map<string, NarHash>()
  /** Images that failed: what they refer to may come later. */
  readonly #failed = new Map<string, NarHash>()
  #work: Promise<void> | undefined

  constructor(context: TaskContext) {
    this.#context = context
    this.#unfollow = context.catalog.onStep(({ narHash, to }) => { if (to === 'verified') this.#add(narHash) })
  }

  /** Whether nothing is under way, nor waits. */
  get isIdle(): boolean {
    return this.#work === undefined
  }

  /** Takes up what was fetched before, for the start and when the policy changes. */
  takeUpAll(): void {
    for (const { narHash } of this.#context.catalog.list({ state: 'verified' })) this.#add(narHash)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unfollow()
    this.#abort.abort()
    this.#waiting.clear()
    await this.#work
  }

  #add(narHash: NarHash): void {
    const { installFetched, useNix } = this.#context.settings
    if (!installFetched || !useNix || this.#abort.signal.aborted) return
    this.#waiting.set(narHash.toNix32(), narHash)
    this.#work ??= this.#run().finally(() => { this.#work = undefined })
  }

  async #run(): Promise<void> {
    // What becomes verified together is installed together.
    await setImmediate()
    while (this.#waiting.size > 0) {
      const batch = [...this.#waiting.values()]
      this.#waiting.clear()
      try {
        await this.#install(await this.#plan(batch))
      } catch (error) {
        if (this.#abort.signal.aborted) return
        this.#context.logger.warn('cannot install what was fetched', { reason: messageOf(error) })
      }
    }
  }

  async #install(members: readonly Member[]): Promise<void> {
    const { catalog, logger } = this.#context
    const installed = await installEach(this.#context, members, { signal: this.#abort.signal, onFailure: ({ row: { narHash }, registration: { storePath } }, error) => {
      logger.warn('cannot install what was fetched', { storePath, reason: messageOf(error) })
      if (catalog.get(narHash) !== undefined) noteInstall(this.#context, narHash, messageOf(error))
      this.#failed.set(narHash.toNix32(), narHash)
    } })
    if (installed === 0) return
    for (const [key, narHash] of this.#failed) this.#waiting.set(key, narHash)
    this.#failed.clear()
  }

  /** What is to be installed, each after those that it refers to; with those, where they are here and not installed yet. */
  async #plan(narHashes: readonly NarHash[]): Promise<Member[]> {
    const { catalog } = this.#context
    const order: Member[] = []
    const seen = new Set<string>()
    const stack: { readonly member: Member, readonly ready: boolean }[] = []
    const push = (member: Member): void => { stack.push({ member, ready: false }) }
    for (const narHash of narHashes) {
      const row = catalog.get(narHash)
      for (const registration of catalog.registrations(narHash)) if (row !== undefined) push({ row, registration })
    }
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const { member, ready } = next
      const { storePath, references } = member.registration
      if (ready) order.push(member)
      if (ready || seen.has(storePath) || !await this.#isToBeInstalled(member)) continue
      seen.add(storePath)
      stack.push({ member, ready: true })
      for (const reference of references) {
        const needed = memberAt(catalog, reference)
        if (needed !== undefined && !seen.has(reference)) push(needed)
      }
    }
    return order
  }

  /** Only what was fetched, whose store path is more than a peer's claim, and that is not installed yet. */
  async #isToBeInstalled({ row: { narHash, state, source, place }, registration: { storePath, vouchedBy } }: Member): Promise<boolean> {
    if (state !== 'verified' || source !== 'fetch' || place !== 'content' || vouchedBy === null) return false
    return !await this.#context.content.roots.isInstalled(narHash, storePath)
  }
}
