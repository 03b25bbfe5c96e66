import { isNarvikError, messageOf } from '../errors.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { MAX_NIX_WRITERS, NIX_ADD_STALL_MS, NIX_QUERY_TIMEOUT_MS } from '../limits.ts'
import type { NixCommand } from './command.ts'
import { classifyMessage, NixError, whatNixSaid } from './nix-error.ts'
import { Slots } from './slots.ts'
import { type Registration, WorkerClient } from './worker/client.ts'
import { NixSaidNo } from './worker/said.ts'

export interface StoreWriterInit {
  /** Milliseconds for a short answer. */
  readonly queryTimeoutMs?: number
  /** Milliseconds without progress of a path that is being added. */
  readonly stallMs?: number
}

interface UseOptions extends StoreWriterInit {
  readonly signal?: AbortSignal | undefined
  /** Whether it only makes roots, which is soon done. */
  readonly protects?: boolean
}

/** What registers a large path takes long: who wants to protect one need not wait for it. */
const lanes = { registering: new Slots(MAX_NIX_WRITERS), protecting: new Slots(MAX_NIX_WRITERS) }

/**
 * Registers paths in the Nix store of this machine, over one connection of the worker protocol.
 *
 * Why this door: `nix-store --import` holds each NAR in memory as a whole and takes neither signatures nor content
 * addresses; `nix copy --from file://…` wants every NAR as a file beside a narinfo, so an image would be written a third
 * time; the store's own files and database are nobody's but Nix's. The worker protocol is what `nix copy` itself speaks
 * to a daemon: the NAR goes through in pieces, the metadata is registered as it is given, and Nix checks all of it.
 */
export class StoreWriter {
  readonly #client: WorkerClient
  readonly #init: Required<StoreWriterInit>
  readonly #kept = new Set<string>()

  private constructor(client: WorkerClient, init: Required<StoreWriterInit>) {
    this.#client = client
    this.#init = init
  }

  /**
   * Opens a connection, lets `work` use it, and closes it. Whatever ends `work` early ends the connection too.
   * @throws NixError where Nix refuses or fails, with what it said; the signal's reason.
   */
  static async use<T>(nix: Pick<NixCommand, 'startStoreDaemon'>, work: (writer: StoreWriter) => Promise<T>, { signal, protects = false, ...given }: UseOptions = {}): Promise<T> {
    const init = { queryTimeoutMs: NIX_QUERY_TIMEOUT_MS, stallMs: NIX_ADD_STALL_MS, ...given }
    return lanes[protects ? 'protecting' : 'registering'].run(async () => {
      const daemon = await nix.startStoreDaemon({ signal })
      try {
        const client = await limited('open a connection to the Nix store', init.queryTimeoutMs, () => WorkerClient.open(daemon))
        const result = await work(new StoreWriter(client, init))
        await daemon.stop()
        return result
      } catch (error) {
        const complaint = await daemon.stop()
        signal?.throwIfAborted()
        throw withComplaint(error, complaint)
      }
    }, signal)
  }

  async validPaths(paths: readonly string[]): Promise<Set<string>> {
    return limited('ask the Nix store which paths are valid', this.#init.queryTimeoutMs, () => this.#client.validPaths(paths))
  }

  async pathInfo(path: string): Promise<NixPathInfo | null> {
    return limited(`ask the Nix store about ${path}`, this.#init.queryTimeoutMs, () => this.#client.pathInfo(path))
  }

  /** Keeps a path from the garbage collector until the connection ends. */
  async keep(path: string): Promise<void> {
    if (this.#kept.has(path)) return
    this.#kept.add(path)
    await limited(`keep ${path}`, this.#init.queryTimeoutMs, () => this.#client.addTempRoot(path))
  }

  /** Has Nix take a link to a path of the store for a root of its garbage collector, for as long as the link is there. */
  async addIndirectRoot(link: string): Promise<void> {
    await limited(`protect the target of ${link}`, this.#init.queryTimeoutMs, () => this.#client.addIndirectRoot(link))
  }

  async addSignatures(path: string, signatures: readonly string[]): Promise<void> {
    await limited(`add signatures to ${path}`, this.#init.queryTimeoutMs, () => this.#client.addSignatures(path, signatures))
  }

  /** As `WorkerClient.addToStore`; the NAR is asked for as fast as Nix takes it. */
  async add(info: Registration, nar: AsyncIterable<Uint8Array>, options: { readonly checkSignatures: boolean }): Promise<void> {
    let stalled = setTimeout(() => undefined, 0)
    const { promise, reject } = Promise.withResolvers<never>()
    const watch = (): void => {
      clearTimeout(stalled)
      stalled = setTimeout(() => { reject(new NixError('timed-out', `Cannot register ${info.path}: found no progress for ${this.#init.stallMs} ms, needed some`)) }, this.#init.stallMs)
    }
    const watched = async function* (): AsyncGenerator<Uint8Array> {
      for await (const bytes of nar) {
        watch()
        yield bytes
      }
      watch()
    }
    try {
      watch()
      await Promise.race([this.#client.addToStore(info, watched(), options), promise])
    } catch (error) {
      throw translate(error, `register ${info.path}`)
    } finally {
      clearTimeout(stalled)
    }
  }
}

async function limited<T>(action: string, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => { reject(new NixError('timed-out', `Cannot ${action}: found no answer after ${timeoutMs} ms, needed one`)) }, timeoutMs)
  try {
    return await Promise.race([work(), promise])
  } catch (error) {
    throw translate(error, action)
  } finally {
    clearTimeout(timer)
  }
}

function translate(error: unknown, action: string): unknown {
  if (!(error instanceof NixSaidNo)) return error
  const said = whatNixSaid(error.message)
  const kind = classifyMessage(said)
  return new NixError(kind, `Cannot ${action}: found that Nix refuses: ${said}`, { cause: error })
}

/** A connection that broke off says nothing by itself: what the process wrote as it ended says why. */
function withComplaint(error: unknown, complaint: string): unknown {
  if (!isNarvikError(error, 'nix-failed') || error instanceof NixError) return error
  const found = complaint === 'nothing' ? messageOf(error) : `${messageOf(error)} (nix-daemon said: ${complaint})`
  return new NixError(classifyMessage(complaint), found, { cause: error })
}

