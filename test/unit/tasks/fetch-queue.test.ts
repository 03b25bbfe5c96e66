import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { cancelFetch } from '../../../src/tasks/cancel-fetch.ts'
import { explainImage } from '../../../src/tasks/explain-image.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { FetchQueue } from '../../../src/tasks/fetch-queue.ts'
import { describeQueue, moveInQueue } from '../../../src/tasks/queue.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, gate, makeImage, someTree } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'

const { signal } = new AbortController()
const onWait = (): void => undefined

/** Lets things happen that wait for nothing. */
const settled = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

/** A queue with names for images, which notes who was let in. */
function queueOf(atOnce: number) {
  const queue = new FetchQueue(atOnce)
  const entered: string[] = []
  const turns = new Map<string, Disposable>()
  const enter = (name: string, priority = 0, given = signal): Promise<void> => queue.enter(someHash(name), { priority, signal: given, onWait }).then(turn => {
    entered.push(name)
    turns.set(name, turn)
  })
  const leave = async (name: string): Promise<void> => {
    turns.get(name)?.[Symbol.dispose]()
    await settled()
  }
  return { queue, entered, enter, leave }
}

describe('the queue', () => {
  it('lets so many in at once, by priority and then in the order in which they came', async () => {
    const { entered, enter, leave } = queueOf(1)
    for (const [name, priority] of [['first', 0], ['low', -5], ['a', 0], ['high', 5], ['b', 0]] as const) void enter(name, priority)
    await settled()
    for (const name of ['first', 'high', 'a', 'b']) await leave(name)
    expect(entered).toEqual(['first', 'high', 'a', 'b', 'low'])
  })

  it('can be changed while they wait', async () => {
    const { queue, entered, enter, leave } = queueOf(1)
    for (const name of ['first', 'a', 'b', 'c']) void enter(name)
    await settled()
    expect(queue.setPriority(someHash('c'), 7)).toBe(true)
    expect(queue.move(someHash('b'), 1)).toBe(7)
    expect(queue.list().map(({ priority }) => priority)).toEqual([7, 7, 0])
    expect([queue.move(someHash('first'), 1), queue.setPriority(someHash('gone'), 1)]).toEqual([undefined, false])
    for (const name of ['first', 'b', 'c']) await leave(name)
    expect(entered).toEqual(['first', 'b', 'c', 'a'])
  })

  it('lets more in when it is told to, and forgets who gives up', async () => {
    const { queue, entered, enter, leave } = queueOf(1)
    const given = new AbortController()
    void enter('first')
    const waiting = enter('gives-up', 9, given.signal)
    void enter('a')
    void enter('b')
    given.abort(new NarvikError('cancelled', 'Cannot wait: so'))
    await expectFailure(waiting, 'cancelled', /so/)
    queue.configure(2)
    await settled()
    expect(entered).toEqual(['first', 'a'])
    await leave('first')
    await leave('first')
    expect(entered).toEqual(['first', 'a', 'b'])
  })

  it('stays in order, whatever is done with it', () => {
    const action = fc.oneof(
      fc.record({ kind: fc.constant('enter' as const), image: fc.nat(9), value: fc.integer({ min: -3, max: 3 }) }),
      fc.record({ kind: fc.constant('move' as const), image: fc.nat(9), value: fc.integer({ min: 1, max: 12 }) }),
      fc.record({ kind: fc.constant('priority' as const), image: fc.nat(9), value: fc.integer({ min: -3, max: 3 }) }),
    )
    fc.assert(fc.property(fc.array(action, { maxLength: 40 }), actions => {
      const queue = new FetchQueue(0)
      for (const { kind, image, value } of actions) {
        const narHash = someHash(image)
        const before = queue.list().length
        if (kind === 'enter') void queue.enter(narHash, { priority: value, signal, onWait })
        else if (kind === 'move') queue.move(narHash, value)
        else queue.setPriority(narHash, value)
        expect(queue.list().length - before).toBe(kind === 'enter' ? 1 : 0)
        const priorities = queue.list().map(({ priority }) => priority)
        expect(priorities).toEqual(priorities.toSorted((a, b) => b - a))
      }
    }))
  })
})

/** A host that receives one image at a time, and peers that send nothing before they are let. */
async function oneAtATime(count: number) {
  const fleet = await FakeFleet.start()
  const { context } = fleet
  context.queue.configure(1)
  const { opened, open } = gate()
  const images = await Promise.all(Array.from({ length: count }, (_, index) => makeImage(someTree(100_000, 11 + 2 * index))))
  for (const [index, image] of images.entries()) await fleet.add(`peer-${index}`, image, { before: at => at === 0 ? undefined : opened })
  const fetch = (index: number, priority?: number) => {
    const fetching = fetchImage(context, { ref: { kind: 'nar-hash', narHash: (images[index] as (typeof images)[number]).narHash }, priority })
    fetching.catch(() => undefined)
    return fetching
  }
  const waiting = (): string[] => describeQueue(context).map(({ narHash }) => narHash)
  const sri = (index: number): string => images[index]?.narHash.toSri() ?? ''
  return { context, images, open, fetch, waiting, sri }
}

describe('fetches', () => {
  it('wait for their turn, by their priority, which may change', async () => {
    const { context, images, open, fetch, waiting, sri } = await oneAtATime(4)
    const fetches = [fetch(0)]
    await expect.poll(() => context.jobs.list()[0]?.progress.phase).toBe('receiving')
    // One enters the queue when a provider is found, which takes the one longer than the other.
    fetches.push(fetch(1))
    await expect.poll(waiting).toEqual([sri(1)])
    fetches.push(fetch(2))
    await expect.poll(waiting).toEqual([sri(1), sri(2)])
    fetches.push(fetch(3, 5))
    await expect.poll(waiting).toEqual([sri(3), sri(1), sri(2)])
    expect(explainImage(context, { kind: 'nar-hash', narHash: images[1]?.narHash ?? someHash('') })).toMatchObject({
      state: 'wanted', why: expect.stringMatching(/UTC$/) as string, reason: 'its bytes are not here yet', next: expect.stringContaining('waits for its turn, number 2 of 3; narvik queue') as string,
    })
    // Asked for again, and moved.
    fetches.push(fetch(2, 9))
    expect(waiting()).toEqual([sri(2), sri(3), sri(1)])
    expect(moveInQueue(context, { ref: { kind: 'nar-hash', narHash: images[1]?.narHash ?? someHash('') }, position: 1 }).map(({ narHash, priority }) => [narHash, priority])).toEqual([[sri(1), 9], [sri(2), 9], [sri(3), 5]])
    expect(context.jobs.list().map(({ progress }) => progress.phase)).toEqual(['receiving', 'queued', 'queued', 'queued'])
    const order: string[] = []
    for (const [index, fetching] of fetches.slice(0, 4).entries()) void fetching.then(() => { order.push(sri(index)) })
    open()
    await Promise.all(fetches)
    expect(order).toEqual([sri(0), sri(1), sri(2), sri(3)])
    expect(context.catalog.list().map(({ priority }) => priority)).toEqual([0, 9, 9, 5])
  })

  it('that are cancelled end for all who wait, and leave nothing', async () => {
    const { context, images, fetch, waiting, sri } = await oneAtATime(2)
    const fetches = [fetch(0), fetch(0)]
    await expect.poll(() => context.jobs.list()[0]?.progress.phase).toBe('receiving')
    fetches.push(fetch(1))
    await expect.poll(waiting).toEqual([sri(1)])
    for (const { narHash } of images) expect(await cancelFetch(context, { ref: { kind: 'nar-hash', narHash } })).toMatchObject({ narHash })
    for (const fetching of fetches) await expectFailure(fetching, 'cancelled', /it was cancelled/)
    expect([context.catalog.list(), waiting(), await context.content.inQuarantine()]).toEqual([[], [], []])
    expect(context.catalog.journal(images[0]?.narHash ?? someHash('')).at(-1)).toMatchObject({ event: 'remove', reason: 'cancelled on request' })
    expect(explainImage(context, { kind: 'nar-hash', narHash: images[0]?.narHash ?? someHash('') })).toMatchObject({
      narHash: sri(0), state: null, why: expect.stringMatching(/^it is not here any more since .* UTC$/) as string, reason: 'cancelled on request', next: 'narvik fetch looks for it in the fleet',
    })
    expect(() => explainImage(context, { kind: 'nar-hash', narHash: someHash('never heard of') })).toThrow(/found no such image/)
  })

  it('that are over can not be cancelled', async () => {
    const { context, images: [image], open, fetch } = await oneAtATime(1)
    open()
    await fetch(0)
    const ref = { kind: 'nar-hash', narHash: image?.narHash ?? someHash('') } as const
    await expectFailure(cancelFetch(context, { ref }), 'conflict', /found it verified/)
    expect(context.catalog.get(ref.narHash)?.state).toBe('verified')
    expect(() => moveInQueue(context, { ref, position: 1 })).toThrow(/found it not in the queue/)
  })
})
