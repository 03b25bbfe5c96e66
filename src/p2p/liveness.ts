import type { Connection, Libp2p, PeerId } from '@libp2p/interface'
import { messageOf } from '../errors.ts'
import { PROBE_INTERVAL_MS, PROBE_TIMEOUT_MS } from '../limits.ts'
import type { Logger } from '../log.ts'
import type { Traffic } from './protocol.ts'

/** Failures in a row that end a connection: one may be a busy moment. */
const FAILURES = 2

export interface LivenessComponents {
  readonly libp2p: Pick<Libp2p, 'getConnections'>
  readonly ping: (peerId: PeerId, options: { signal: AbortSignal }) => Promise<unknown>
  readonly trafficOf: (peerId: string) => Traffic
  readonly logger: Logger
}

export interface LivenessInit {
  readonly intervalMs?: number | undefined
  readonly timeoutMs?: number | undefined
}

/**
 * Ends the connections of peers that are gone without a word: switched off, unplugged, frozen. The kernel would keep them for a quarter of an
 * hour, and a peer that came back would be talked to through the dead one. A link that moves bytes is never ended: there a probe
 * may be late because the link is busy.
 */
export class Liveness {
  readonly #components: LivenessComponents
  readonly #intervalMs: number
  readonly #timeoutMs: number
  readonly #stopping = new AbortController()
  readonly #probing = new Set<string>()
  readonly #failures = new WeakMap<Connection, number>()
  #timer: NodeJS.Timeout | undefined

  constructor(components: LivenessComponents, { intervalMs = PROBE_INTERVAL_MS, timeoutMs = PROBE_TIMEOUT_MS }: LivenessInit = {}) {
    this.#components = components
    this.#intervalMs = intervalMs
    this.#timeoutMs = timeoutMs
  }

  start(): void {
    this.#timer = setInterval(() => {
      for (const connection of this.#components.libp2p.getConnections()) void this.#probe(connection)
    }, this.#intervalMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#stopping.abort()
  }

  async #probe({ remotePeer }: Connection): Promise<void> {
    const { libp2p, ping, trafficOf, logger } = this.#components
    const peerId = remotePeer.toString()
    if (this.#probing.has(peerId)) return
    this.#probing.add(peerId)
    const before = movedBytes(trafficOf(peerId))
    // All connections of the peer: which of them a stream takes is libp2p's affair, and a probe is a stream.
    const probed = libp2p.getConnections(remotePeer)
    try {
      await ping(remotePeer, { signal: AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(this.#timeoutMs)]) })
      for (const connection of probed) this.#failures.delete(connection)
    } catch (error) {
      if (this.#stopping.signal.aborted || movedBytes(trafficOf(peerId)) !== before) return
      for (const connection of probed) this.#onFailure(connection, error)
      logger.debug('a peer did not answer a probe', { peerId, reason: messageOf(error) })
    } finally {
      this.#probing.delete(peerId)
    }
  }

  #onFailure(connection: Connection, error: unknown): void {
    const failures = (this.#failures.get(connection) ?? 0) + 1
    this.#failures.set(connection, failures)
    if (failures >= FAILURES) connection.abort(new Error(`the peer answered no probe: ${messageOf(error)}`))
  }
}

function movedBytes({ received, sent }: Traffic): number {
  return received + sent
}
