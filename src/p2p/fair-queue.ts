/** What several sources have brought, to be taken by one: each time from the source of which the fewest were taken, so that none holds up the others by bringing many. */
export class FairQueue<Item> {
  readonly #sources = new Map<string, { readonly items: Item[], taken: number }>()
  #wake = Promise.withResolvers<undefined>()
  #end: { readonly error: unknown } | undefined

  add(source: string, item: Item): void {
    const known = this.#sources.get(source) ?? { items: [], taken: 0 }
    this.#sources.set(source, known)
    known.items.push(item)
    this.#wake.resolve(undefined)
  }

  /** Nothing comes any more; with an error whoever takes is told of it after the last item. */
  end(error?: unknown): void {
    this.#end = { error }
    this.#wake.resolve(undefined)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item> {
    for (;;) {
      const source = this.#next()
      if (source !== undefined) {
        source.taken += 1
        yield source.items.shift() as Item
        continue
      }
      if (this.#end !== undefined) break
      await this.#wake.promise
      this.#wake = Promise.withResolvers()
    }
    if (this.#end.error !== undefined) throw this.#end.error as Error
  }

  #next(): { readonly items: Item[], taken: number } | undefined {
    const waiting = [...this.#sources.values()].filter(({ items }) => items.length > 0)
    return waiting.reduce<(typeof waiting)[number] | undefined>((least, other) => least !== undefined && least.taken <= other.taken ? least : other, undefined)
  }
}
