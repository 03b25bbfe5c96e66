import type { NarHash } from '../../image/nar-hash.ts'
import { MAX_SWARM_PEERS_NAMED } from '../../limits.ts'
import { drawSome } from '../lots.ts'
import type { ChunkHolding } from '../protocol.ts'
import { LeastSent } from './least-sent.ts'

/** One asker of an image. */
export interface Member {
  readonly peerId: string
  /** Another one asks for the same image. */
  readonly onPeer: (peerId: string) => void
}

/** Those who ask this host for one image at the moment, and what they were given. */
export class Swarm {
  readonly leastSent: LeastSent
  readonly #members = new Set<Member>()
  readonly #onEmpty: () => void
  readonly #random: () => number

  constructor({ chunks }: { readonly chunks: Pick<ChunkHolding['chunks'], 'count' | 'length'> }, onEmpty: () => void, random: () => number = Math.random) {
    this.#random = random
    this.leastSent = new LeastSent(chunks.count, chunk => chunks.length(chunk))
    this.#onEmpty = onEmpty
  }

  get size(): number {
    return this.#members.size
  }

  /** The others that ask, in no order: were it the same for all, hosts that come after each other would ask the same ones. */
  others(peerId: string): string[] {
    const ids = new Set([...this.#members].map(member => member.peerId))
    ids.delete(peerId)
    return drawSome([...ids], MAX_SWARM_PEERS_NAMED, this.#random)
  }

  /** Tells everybody of a new member. */
  join(member: Member): void {
    for (const other of this.#members) if (other.peerId !== member.peerId) other.onPeer(member.peerId)
    this.#members.add(member)
  }

  leave(member: Member): void {
    if (this.#members.delete(member) && this.#members.size === 0) this.#onEmpty()
  }
}

/** The swarms of all images that are asked for. What an image's askers were given is forgotten with the last of them. */
export class Swarms {
  readonly #swarms = new Map<string, Swarm>()

  of(narHash: NarHash, manifestDigest: string, holding: ChunkHolding): Swarm {
    const key = `${narHash.toHex()} ${manifestDigest}`
    const known = this.#swarms.get(key)
    if (known !== undefined) return known
    const swarm = new Swarm(holding, () => { this.#swarms.delete(key) })
    this.#swarms.set(key, swarm)
    return swarm
  }
}
