/** An image as the order of collection sees it. */
export interface Collectable {
  readonly key: string
  /** Milliseconds since 1970. */
  readonly usedAt: number
  readonly isNamed: boolean
  /** Whether it takes room that Narvik may give free. One that may not go keeps all that it refers to. */
  readonly mayGo: boolean
  readonly storePaths: readonly string[]
  readonly references: readonly string[]
}

/**
 * The order in which images go: those without a name before those with one, and among them the one that was not used for longest. None
 * goes before everything that refers to it, so that what is left is always whole: whatever stays keeps its closure.
 */
export class CollectionOrder {
  /** The images at each store path. */
  readonly #at = new Map<string, Collectable[]>()
  /** Images that refer to each image and are still here. */
  readonly #referrers = new Map<string, Set<string>>()
  /** Those that can go now, the first one last. */
  readonly #ready: Collectable[]

  constructor(images: readonly Collectable[]) {
    for (const image of images) for (const path of image.storePaths) this.#at.set(path, [...this.#at.get(path) ?? [], image])
    for (const image of images) for (const other of this.#referred(image)) this.#referrersOf(other).add(image.key)
    this.#ready = images.filter(image => this.#isReady(image)).sort(lastFirst)
  }

  /** The next one; undefined where none is left. Whether it went is to be said with `gone`; one that stays keeps what it refers to. */
  next(): Collectable | undefined {
    return this.#ready.pop()
  }

  /** The image is not here any more: what only it referred to may go next. */
  gone(image: Collectable): void {
    for (const other of this.#referred(image)) {
      if (this.#referrersOf(other).delete(image.key) && this.#isReady(other)) this.#insert(other)
    }
  }

  /** What an image refers to, besides itself. */
  #referred({ key, references }: Collectable): Collectable[] {
    return references.flatMap(path => this.#at.get(path) ?? []).filter(other => other.key !== key)
  }

  #referrersOf({ key }: Collectable): Set<string> {
    const referrers = this.#referrers.get(key) ?? new Set()
    this.#referrers.set(key, referrers)
    return referrers
  }

  #isReady(image: Collectable): boolean {
    return image.mayGo && this.#referrersOf(image).size === 0
  }

  #insert(image: Collectable): void {
    let [low, high] = [0, this.#ready.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = this.#ready[middle]
      if (other !== undefined && lastFirst(other, image) < 0) low = middle + 1
      else high = middle
    }
    this.#ready.splice(low, 0, image)
  }
}

function lastFirst(a: Collectable, b: Collectable): number {
  return Number(b.isNamed) - Number(a.isNamed) || b.usedAt - a.usedAt || (a.key < b.key ? 1 : -1)
}
