import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { batching } from '../../../src/tasks/batching.ts'
import { ClosurePlan } from '../../../src/tasks/closure-plan.ts'
import { inGroups } from '../../../src/tasks/in-groups.ts'
import { Jobs } from '../../../src/tasks/jobs.ts'
import { Room } from '../../../src/tasks/room.ts'
import { someHash } from '../../helpers/images.ts'

/** Acyclic by construction: a number refers to smaller ones, or to itself. */
const graphs = fc.array(fc.array(fc.nat(), { maxLength: 5 }), { minLength: 1, maxLength: 40 })
  .map(lists => lists.map((list, number) => [...new Set(list.map(one => one % (number + 1)))]))

describe('the plan of a closure', () => {
  test('lets in all of it, in whatever order it arrives, each path after what it refers to', () => {
    fc.assert(fc.property(graphs, fc.infiniteStream(fc.nat()), fc.integer({ min: 1, max: 7 }), (references, dice, most) => {
      const plan = new ClosurePlan(references)
      const left = references.map((_list, number) => number)
      const here = new Set<number>()
      while (left.length > 0) {
        const [number = 0] = left.splice((dice.next().value ?? 0) % left.length, 1)
        plan.arrive(number)
        expect(plan.isAbsent(number)).toBe(false)
        for (let group = plan.takeReady(most); group.length > 0; group = plan.takeReady(most)) {
          expect(group.length).toBeLessThanOrEqual(most)
          for (const one of group) {
            for (const reference of references[one] ?? []) if (reference !== one) expect(here.has(reference)).toBe(true)
            expect(here.has(one)).toBe(false)
            here.add(one)
          }
        }
      }
      expect(here.size).toBe(references.length)
      expect(plan.left).toBe(0)
    }))
  })

  test('counts what is here already, and says what is free to be begun with', () => {
    const plan = new ClosurePlan([[], [0], [0, 1, 2]])
    expect([0, 1, 2].map(number => plan.isFree(number))).toEqual([true, false, false])
    plan.arrive(2)
    plan.settle(1)
    expect(plan.takeReady(9)).toEqual([])
    plan.settle(0)
    expect(plan.takeReady(9)).toEqual([2])
    expect(plan.left).toBe(0)
  })

  test('lets each in once, whether it arrives or is found here again', () => {
    const plan = new ClosurePlan([[], [0], [0, 1]])
    plan.settle(0)
    plan.settle(0)
    expect([plan.left, plan.isFree(2)]).toEqual([2, false])
    plan.arrive(0)
    expect(plan.takeReady(9)).toEqual([])
    plan.arrive(1)
    plan.arrive(1)
    plan.settle(1)
    expect(plan.takeReady(9)).toEqual([])
    plan.arrive(2)
    plan.arrive(2)
    expect(plan.takeReady(9)).toEqual([2])
    expect(plan.left).toBe(0)
  })

  test('lets nothing in that has not arrived, though all that it refers to is here', () => {
    const plan = new ClosurePlan([[], [0]])
    plan.arrive(0)
    expect(plan.takeReady(9)).toEqual([0])
    expect(plan.takeReady(9)).toEqual([])
    plan.arrive(1)
    expect(plan.takeReady(9)).toEqual([1])
  })
})

test('what is prepared ahead comes out in its order, and a failure ends what is under way', async () => {
  const gates = Array.from({ length: 4 }, () => Promise.withResolvers<undefined>())
  let most = 0
  let running = 0
  const groups: number[][] = []
  const prepare = async (item: number): Promise<number> => {
    most = Math.max(most, ++running)
    await gates[item]?.promise
    running--
    return item
  }
  const all = (async () => { for await (const group of inGroups([0, 1, 2, 3], prepare, { ahead: 2 })) groups.push(group) })()
  gates[1]?.resolve(undefined)
  gates[3]?.resolve(undefined)
  gates[2]?.resolve(undefined)
  gates[0]?.resolve(undefined)
  await all
  expect(groups.flat()).toEqual([0, 1, 2, 3])
  expect(most).toBe(2)

  const ended: number[] = []
  const failing = async (item: number, signal: AbortSignal): Promise<number> => {
    if (item === 0) throw new Error('no')
    await new Promise(resolve => { signal.addEventListener('abort', resolve) })
    ended.push(item)
    return item
  }
  await expect((async () => { for await (const group of inGroups([0, 1, 2], failing, { ahead: 2 })) groups.push(group) })()).rejects.toThrow(/no/)
  expect(ended).toEqual([1])
})

test('what comes while a batch is under way is the next one', async () => {
  const batches: number[][] = []
  const work = batching(async (items: readonly number[]) => {
    batches.push([...items])
    await Promise.resolve()
    return items.map(item => item * 2)
  }, { most: 2 })
  expect(await Promise.all([1, 2, 3, 4].map(work))).toEqual([2, 4, 6, 8])
  expect(batches).toEqual([[1], [2, 3], [4]])
})

test('room is given in turn, and who needs more than there is takes all of it', async () => {
  const room = new Room(10)
  const first = await room.take(6)
  const order: string[] = []
  const big = room.take(50).then(release => { order.push('big'); return release })
  const small = room.take(1).then(release => { order.push('small'); return release })
  first()
  const release = await big
  expect(order).toEqual(['big'])
  release()
  await small
  expect(order).toEqual(['big', 'small'])
})

test('work on many images begins when its turn has come for each, and each job has its own result', async () => {
  const jobs = new Jobs()
  const [one, two] = [someHash('one'), someHash('two')]
  const before = Promise.withResolvers<undefined>()
  jobs.run('verify', two, () => before.promise)
  let hasBegun = false
  const together = jobs.runTogether('import', [one, two], () => {
    hasBegun = true
    return Promise.resolve(['first', 'second'])
  })
  const results = [one, two].map(async narHash => await jobs.find(narHash)?.result)
  await Promise.resolve()
  expect(hasBegun).toBe(false)
  before.resolve(undefined)
  expect(await together).toEqual(['first', 'second'])
  expect(await Promise.all(results)).toEqual(['first', 'second'])
  expect(jobs.list()).toEqual([])
})
