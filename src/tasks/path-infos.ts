import { setImmediate } from 'node:timers/promises'
import { isNarvikError, messageOf } from '../errors.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import type { Logger } from '../log.ts'
import type { NixCommand } from '../nix/command.ts'
import { isSameFile } from '../nix/store-stamp.ts'
import type { KnownPath, KnownPaths } from '../store/known-paths.ts'
import { stillRegistered } from '../store/nix-registrations.ts'

interface Parts {
  readonly nix: Pick<NixCommand, 'pathInfo' | 'stamp' | 'database'>
  readonly known: Pick<KnownPaths, 'get' | 'put'>
  readonly logger: Logger
}

type Answer = Map<string, NixPathInfo | null>

/** One caller's question that waits for its turn. */
interface Question {
  readonly paths: readonly string[]
  readonly answer: (answer: Answer) => void
  readonly fail: (error: unknown) => void
  /** Whether the caller has gone away. */
  gone: boolean
}

/**
 * What Nix knows of store paths, asked as seldom as can be: what it said before is taken from the catalog while nothing has changed in
 * its store, or while its database has the same registration of the same file; and all who ask while a process runs share the next one.
 */
export class PathInfos {
  readonly #parts: Parts
  readonly #waiting: Question[] = []
  #asking: { readonly questions: readonly Question[], readonly abort: AbortController } | undefined
  #isBusy = false

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** As `NixCommand.pathInfo`, whose errors it throws. */
  async get(paths: readonly string[], { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Answer> {
    const answer = this.#recall(new Set(paths))
    const unknown = [...new Set(paths)].filter(path => !answer.has(path))
    if (unknown.length > 0) for (const [path, info] of await this.#ask(unknown, signal)) answer.set(path, info)
    return answer
  }

  /** What is remembered and still holds. */
  #recall(paths: Iterable<string>): Answer {
    const { nix, known } = this.#parts
    const holding: KnownPath[] = []
    const doubtful: KnownPath[] = []
    for (const path of paths) {
      const stamp = nix.stamp(path)
      const found = stamp === null ? undefined : known.get(path)
      if (stamp === null || found === undefined) continue
      if (found.stamp === stamp) holding.push(found)
      else if (isSameFile(found.stamp, stamp)) doubtful.push({ ...found, stamp })
    }
    const same = nix.database === null ? new Set() : stillRegistered(nix.database, doubtful)
    const confirmed = doubtful.filter(({ path }) => same.has(path))
    // The stamp was taken first: what changed since will be seen by the next one.
    if (confirmed.length > 0) this.#keep(confirmed)
    return new Map([...holding, ...confirmed].map(found => [found.path, toPathInfo(found)]))
  }

  async #ask(paths: readonly string[], signal: AbortSignal | undefined): Promise<Answer> {
    signal?.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const question: Question = { paths, answer: resolve, fail: reject, gone: false }
    const leave = (): void => {
      question.gone = true
      reject(signal?.reason)
      // A process that nobody waits for any more ends.
      if (this.#asking?.questions.every(({ gone }) => gone) === true) this.#asking.abort.abort(signal?.reason)
    }
    signal?.addEventListener('abort', leave, { once: true })
    this.#waiting.push(question)
    void this.#work()
    try {
      return await promise
    } finally {
      signal?.removeEventListener('abort', leave)
    }
  }

  async #work(): Promise<void> {
    if (this.#isBusy) return
    this.#isBusy = true
    await setImmediate()
    while (this.#waiting.length > 0) await this.#answer(this.#waiting.splice(0).filter(({ gone }) => !gone))
    this.#isBusy = false
  }

  async #answer(questions: readonly Question[]): Promise<void> {
    if (questions.length === 0) return
    const abort = new AbortController()
    this.#asking = { questions, abort }
    try {
      const infos = await this.#askNix(questions.flatMap(({ paths }) => paths), abort.signal)
      for (const { paths, answer } of questions) answer(new Map(paths.map(path => [path, infos.get(path) ?? null])))
    } catch (error) {
      // What one asks for is no reason to fail another.
      if (questions.length > 1 && !isNarvikError(error, 'timed-out') && !abort.signal.aborted) for (const question of questions) await this.#answer([question])
      else for (const { fail } of questions) fail(error)
    } finally {
      this.#asking = undefined
    }
  }

  async #askNix(paths: readonly string[], signal: AbortSignal): Promise<Answer> {
    const { nix } = this.#parts
    const stamps = new Map(paths.map(path => [path, nix.stamp(path)]))
    const infos = await nix.pathInfo(paths, { signal })
    this.#remember(infos, stamps)
    return infos
  }

  /** What the store looked like before and after the question, the answer is of. */
  #remember(infos: Answer, stamps: ReadonlyMap<string, string | null>): void {
    const { nix } = this.#parts
    const kept: KnownPath[] = []
    for (const [path, info] of infos) {
      const stamp = stamps.get(path) ?? null
      if (info !== null && stamp !== null && nix.stamp(path) === stamp) kept.push({ ...info, stamp })
    }
    if (kept.length > 0) this.#keep(kept)
  }

  #keep(paths: readonly KnownPath[]): void {
    try {
      this.#parts.known.put(paths)
    } catch (error) {
      this.#parts.logger.warn('cannot remember what Nix said', { reason: messageOf(error) })
    }
  }
}

function toPathInfo({ path, narHash, narSize, references, deriver, ca, signatures, registrationTime, ultimate }: KnownPath): NixPathInfo {
  return { path, narHash, narSize, references, deriver, ca, signatures, registrationTime, ultimate }
}
