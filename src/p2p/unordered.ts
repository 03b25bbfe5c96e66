/** Does `work` on up to `limit` items at once and yields those results that are something as they are done, whatever their order. */
export async function* unordered<Item, Result>(
  source: AsyncIterable<Item>, limit: number, work: (item: Item) => Promise<Result | undefined>,
): AsyncGenerator<Result> {
  const iterator = source[Symbol.asyncIterator]()
  const pending = new Set<Promise<() => Result | undefined>>()
  let next: Promise<IteratorResult<Item>> | undefined = iterator.next()
  try {
    while (next !== undefined || pending.size > 0) {
      const waiting: Promise<IteratorResult<Item> | (() => Result | undefined)>[] = [...pending]
      if (next !== undefined && pending.size < limit) waiting.push(next)
      const step = await Promise.race(waiting)
      if (typeof step === 'function') {
        const result = step()
        if (result !== undefined) yield result
      } else {
        next = step.done === true ? undefined : iterator.next()
        if (step.done !== true) start(step.value)
      }
    }
  } finally {
    // What is not waited for any more must not end the process.
    next?.catch(() => undefined)
    for (const promise of pending) promise.catch(() => undefined)
    // Nor may it be waited for: a source that is in the middle of a step ends only after it.
    iterator.return?.().catch(() => undefined)
  }

  function start(item: Item): void {
    const promise: Promise<() => Result | undefined> = work(item).then(result => () => {
      pending.delete(promise)
      return result
    })
    pending.add(promise)
  }
}
