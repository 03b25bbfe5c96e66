export interface GroupOptions {
  /** Items that are prepared at once, or wait prepared for those before them. */
  readonly ahead: number
}

/**
 * Prepares items, several at a time, and hands them out in their order, in groups: each time all that are ready and follow one another.
 * The first failure ends it, once what is under way has ended.
 */
export async function* inGroups<Item, Ready>(items: Iterable<Item>, prepare: (item: Item, signal: AbortSignal) => Promise<Ready>, { ahead }: GroupOptions): AsyncGenerator<Ready[]> {
  const left = items[Symbol.iterator]()
  const ending = new AbortController()
  const queue: Preparation<Ready>[] = []
  const fill = (): void => {
    while (queue.length < ahead) {
      const next = left.next()
      if (next.done === true) return
      queue.push(new Preparation(prepare(next.value, ending.signal)))
    }
  }
  try {
    for (;;) {
      fill()
      if (queue.length === 0) return
      await queue[0]?.ended
      const group: Ready[] = []
      for (let first = queue[0]; first?.isOver === true; first = queue[0]) {
        group.push(await first.promise)
        queue.shift()
      }
      yield group
    }
  } finally {
    ending.abort()
    await Promise.all(queue.map(({ ended }) => ended))
  }
}

class Preparation<Ready> {
  readonly promise: Promise<Ready>
  /** Resolves when it is over, well or not. */
  readonly ended: Promise<void>
  isOver = false

  constructor(promise: Promise<Ready>) {
    this.promise = promise
    const end = (): void => { this.isOver = true }
    this.ended = promise.then(end, end)
  }
}
