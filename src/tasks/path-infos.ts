import { setImmediate } from 'node:timers/promises'
import { isNarvikError, messageOf } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { NixCommand } from '../nix/command.ts'
import type { NixPathInfo } from '../nix/path-info.ts'
import type { KnownPath, KnownPaths } from '../store/known-paths.ts'

interface Parts {
  readonly nix: Pick<NixCommand, 'pathInfo' | 'stamp'>
  readonly known: Pick<KnownPaths, 'get' | 'put' | 'forget'>
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
 * What Nix knows of store paths, asked as seldom as can be: what it said before is taken from the catalog while nothing
 * has changed in its store, and all who ask while a process runs share the next one.
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
    const answer: Answer = new Map()
    const unknown: string[] = []
    for (const path of new Set(paths)) {
      const info = this.#recall(path)
      if (info === undefined) unknown.push(path)
      else answer.set(path, info)
    }
    if (unknown.length > 0) for (const [path, info] of await this.#ask(unknown, signal)) answer.set(path, info)
    return answer
  }

  #recall(path: string): NixPathInfo | undefined {
    const { nix, known } = this.#parts
    const stamp = nix.stamp(path)
    const found = stamp === null ? undefined : known.get(path)
    return found === undefined || found.stamp !== stamp ? undefined : toPathInfo(found)
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
    try {
      this.#remember(infos, stamps)
    } catch (error) {
      this.#parts.logger.warn('cannot remember what Nix said', { reason: messageOf(error) })
    }
    return infos
  }

  /** What the store looked like before and after the question, the answer is of. */
  #remember(infos: Answer, stamps: ReadonlyMap<string, string | null>): void {
    const { nix, known, logger } = this.#parts
    const kept: KnownPath[] = []
    for (const [path, info] of infos) {
      const before = known.get(path)
      if (before !== undefined && before.registrationTime !== info?.registrationTime) {
        logger.info('a store path was registered anew, or is gone', { path })
        known.forget(path)
      }
      const stamp = stamps.get(path) ?? null
      if (info !== null && stamp !== null && nix.stamp(path) === stamp) kept.push({ ...info, stamp })
    }
    if (kept.length > 0) known.put(kept)
  }
}

function toPathInfo({ path, narHash, narSize, references, deriver, ca, signatures, registrationTime, ultimate }: KnownPath): NixPathInfo {
  return { path, narHash, narSize, references, deriver, ca, signatures, registrationTime, ultimate }
}
