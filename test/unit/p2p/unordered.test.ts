import fc from 'fast-check'
import { expect, it } from 'vitest'
import { unordered } from '../../../src/p2p/unordered.ts'
import { failureOf } from '../../helpers/failure.ts'

async function* numbers(count: number): AsyncGenerator<number> {
  for (let n = 0; n < count; n++) yield await Promise.resolve(n)
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = []
  for await (const item of items) all.push(item)
  return all
}

it('yields every result that is something, once, with at most the limit at work', async () => {
  await fc.assert(fc.asyncProperty(fc.scheduler(), fc.nat(20), fc.integer({ min: 1, max: 5 }), async (scheduler, count, limit) => {
    let working = 0
    let most = 0
    const results = collect(unordered(numbers(count), limit, async n => {
      working += 1
      most = Math.max(most, working)
      await scheduler.schedule(Promise.resolve())
      working -= 1
      return n % 3 === 0 ? undefined : n
    }))
    await scheduler.waitFor(results)
    expect((await results).toSorted((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, n) => n).filter(n => n % 3 !== 0))
    expect(most).toBeLessThanOrEqual(limit)
  }))
})

it('fails with its source and with its work', async () => {
  const reason = new Error('no')
  expect(await failureOf(collect(unordered((async function* () { yield await Promise.resolve(1); throw reason })(), 2, n => Promise.resolve(n))))).toBe(reason)
  expect(await failureOf(collect(unordered(numbers(3), 2, () => Promise.reject(reason))))).toBe(reason)
})

it('may be left while its source is in the middle of a step', async () => {
  const never = new Promise<number>(() => undefined)
  const source = (async function* () { yield 1; yield await never })()
  for await (const n of unordered(source, 2, n => Promise.resolve(n))) {
    expect(n).toBe(1)
    break
  }
})
