/** Has works done in batches: what comes while one batch is under way is the next one. Where a batch fails, each of its works does. */
export function batching<Item, Result>(work: (items: readonly Item[]) => Promise<readonly Result[]>, { most }: { most: number }): (item: Item) => Promise<Result> {
  const waiting: Entry<Item, Result>[] = []
  let isBusy = false

  const runAll = async (): Promise<void> => {
    isBusy = true
    while (waiting.length > 0) await run(waiting.splice(0, most))
    isBusy = false
  }

  const run = async (batch: readonly Entry<Item, Result>[]): Promise<void> => {
    try {
      const results = await work(batch.map(({ item }) => item))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result)
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  return item => new Promise((resolve, reject) => {
    waiting.push({ item, resolve, reject })
    if (!isBusy) void runAll()
  })
}

interface Entry<Item, Result> {
  readonly item: Item
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}
