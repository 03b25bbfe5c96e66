/** Providers that one look-up in the DHT ends with: as many as a bucket of it has room for. */
const FOUND = 20

/** What the DHT knows of who has the image: grows, as records outlive the hosts that left. */
export class Directory {
  readonly #peerIds: string[] = []
  readonly #known = new Set<string>()
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  add(peerId: string): void {
    if (this.#known.has(peerId)) return
    this.#known.add(peerId)
    this.#peerIds.push(peerId)
  }

  /** Some of those that announced themselves, other ones each time. */
  find(): string[] {
    if (this.#peerIds.length <= FOUND) return [...this.#peerIds]
    const found = new Set<string>()
    while (found.size < FOUND) found.add(this.#peerIds[Math.floor(this.#random() * this.#peerIds.length)] ?? '')
    return [...found]
  }
}
