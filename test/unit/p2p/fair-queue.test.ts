import { describe, expect, it } from 'vitest'
import { FairQueue } from '../../../src/p2p/fair-queue.ts'

async function take(queue: FairQueue<string>, count: number): Promise<string[]> {
  const taken: string[] = []
  for await (const item of queue) if (taken.push(item) === count) break
  return taken
}

describe('what several have brought', () => {
  // Watches that nobody's many hold up another's few (router-dht.ts takes providers so).
  it('is taken from each in turn, also from one that comes late', async () => {
    const queue = new FairQueue<string>()
    for (let item = 0; item < 100; item++) queue.add('liar', `lie ${item}`)
    queue.add('honest', 'truth')
    expect(await take(queue, 3)).toEqual(['lie 0', 'truth', 'lie 1'])
    queue.add('late', 'news')
    expect(await take(queue, 1)).toEqual(['news'])
  })

  it('is waited for, and ends with its reason', async () => {
    const queue = new FairQueue<string>()
    const taking = take(queue, 1)
    queue.add('one', 'a')
    expect(await taking).toEqual(['a'])
    queue.add('one', 'b')
    queue.end()
    expect(await take(queue, 9)).toEqual(['b'])
    const failing = new FairQueue<string>()
    failing.add('one', 'c')
    failing.end(new Error('no network'))
    await expect(take(failing, 9)).rejects.toThrow('no network')
  })
})
