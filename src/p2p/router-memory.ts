import type { NarHash } from '../image/nar-hash.ts'
import type { Announcement, ContentRouter, Provider } from './router.ts'

/** What MemoryRouters share in place of a network. */
export class MemoryNetwork {
  readonly hosts = new Map<string, { readonly addresses: readonly string[], readonly held: Map<string, Announcement> }>()
}

/** A router without a network, for tests: one per host. */
export class MemoryRouter implements ContentRouter {
  readonly #network: MemoryNetwork
  readonly #peerId: string
  readonly #held = new Map<string, Announcement>()

  constructor(network: MemoryNetwork, { peerId, addresses = [] }: { peerId: string, addresses?: readonly string[] }) {
    this.#network = network
    this.#peerId = peerId
    network.hosts.set(peerId, { addresses, held: this.#held })
  }

  async announce({ narHash, narSize, manifestDigest }: Announcement, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<{ reached: number }> {
    await Promise.resolve()
    signal?.throwIfAborted()
    this.#held.set(narHash.toHex(), { narHash, narSize, manifestDigest })
    return { reached: this.#network.hosts.size - 1 }
  }

  async withdraw(narHash: NarHash): Promise<void> {
    await Promise.resolve()
    this.#held.delete(narHash.toHex())
  }

  async *find(narHash: NarHash, { signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<Provider> {
    await Promise.resolve()
    signal?.throwIfAborted()
    for (const [peerId, { addresses, held }] of this.#network.hosts) {
      const record = held.get(narHash.toHex())
      if (peerId === this.#peerId || record === undefined) continue
      yield { peerId, addresses, record }
      signal?.throwIfAborted()
    }
  }
}
