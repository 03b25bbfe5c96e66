import { createHash } from 'node:crypto'
import { messageOf } from '../../errors.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { HOLDER_ANSWER_MS } from '../../limits.ts'
import type { Logger } from '../../log.ts'
import { fetchNar } from '../../p2p/nar/client.ts'
import type { FleetNode } from '../context.ts'

export interface CopiesParts {
  readonly node: Pick<FleetNode, 'peerId' | 'router' | 'open'>
  readonly logger: Logger
}

/**
 * Where a peer stands among the holders of an image: the same on every host, and another for every image, so that keeping the last
 * copies is spread over the fleet. The host with the lower text keeps its copy rather than the other.
 */
export function standing(narHash: NarHash, peerId: string): string {
  return createHash('sha256').update(narHash.bytes).update(peerId, 'utf8').digest('hex')
}

/**
 * Finds out whether this host may give up its copy of an image.
 *
 * The rule: only when `count` other hosts that come before this one in the order of the image say, asked themselves and now, that they hold
 * it. Nobody has to promise anything, and any number of hosts may decide at the same moment: let a host H give up its copy. Look at
 * the last host before H in the order that has done so earlier. At that moment `count` holders came before that one, hence before H, and none
 * of them has given up since. If there was none, those that H has asked are all still there. Either way `count` holders are left. The
 * first `count` holders can never give up, whatever they think that they know. What the rule can't see is a copy that is removed
 * on request, lost with its disk, or away with its host.
 */
export class Copies {
  readonly #parts: CopiesParts

  constructor(parts: CopiesParts) {
    this.#parts = parts
  }

  /** The holders before this host, found through the DHT and asked, until there are `count` of them. */
  async find(narHash: NarHash, count: number, signal: AbortSignal): Promise<string[]> {
    const holders: string[] = []
    if (count === 0) return holders
    for await (const { peerId } of this.#parts.node.router.find(narHash, { signal })) {
      if (!this.#comesBefore(narHash, peerId) || !await this.#holds(narHash, peerId, signal)) continue
      holders.push(peerId)
      if (holders.length >= count) break
    }
    return holders
  }

  /** Whether all of these still hold the image. */
  async stillHold(narHash: NarHash, peerIds: readonly string[], signal: AbortSignal): Promise<boolean> {
    const answers = await Promise.all(peerIds.map(peerId => this.#holds(narHash, peerId, signal)))
    return answers.every(Boolean)
  }

  #comesBefore(narHash: NarHash, peerId: string): boolean {
    return standing(narHash, peerId) < standing(narHash, this.#parts.node.peerId)
  }

  /** Asks for no byte at all: a host answers that with yes exactly where it would serve the image. */
  async #holds(narHash: NarHash, peerId: string, signal: AbortSignal): Promise<boolean> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(HOLDER_ANSWER_MS)])
    try {
      const answer = await fetchNar(this.#parts.node, peerId, narHash, 0, 0, { signal: limit })
      if (answer.status !== 'ok') return false
      let bytes = 0
      for await (const { byteLength } of answer.body) bytes += byteLength
      return bytes === 0
    } catch (error) {
      signal.throwIfAborted()
      this.#parts.logger.debug('a provider does not say whether it holds an image', { peerId, narHash: narHash.toSri(), reason: messageOf(error) })
      return false
    }
  }
}
