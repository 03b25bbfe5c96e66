import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_CLOSURE_PATHS } from '../../../src/limits.ts'
import type { ImageRow, Registration } from '../../../src/store/image-row.ts'
import { findClosure, memberAt, type Member } from '../../../src/tasks/closure.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { someHash } from '../../helpers/images.ts'

/** A catalog of paths by name, each with what it refers to; what is in `absent` is there, and not verified. */
function catalogOf(graph: Readonly<Record<string, readonly string[]>>, absent: readonly string[] = []) {
  const rows = new Map(Object.keys(graph).map(path => [path, { narHash: someHash(path), state: absent.includes(path) ? 'rejected' : 'verified' } as ImageRow]))
  const paths = new Map(Object.keys(graph).map(path => [someHash(path).toNix32(), path]))
  return {
    getByStorePath: (path: string) => rows.get(path),
    registrations: (narHash: ImageRow['narHash']): Registration[] => {
      const storePath = paths.get(narHash.toNix32())
      return storePath === undefined ? [] : [{ storePath, references: graph[storePath] ?? [], deriver: null, ca: null, signatures: [], vouchedBy: null }]
    },
  }
}

async function closureOf(graph: Readonly<Record<string, readonly string[]>>, root: string, absent: readonly string[] = []): Promise<{ paths: string[], missing: readonly string[] }> {
  const catalog = catalogOf(graph, absent)
  const { members, missing } = await findClosure(catalog, memberAt(catalog, root) as Member)
  return { paths: members.map(({ registration }) => registration.storePath), missing }
}

describe('the closure of a path', () => {
  test('has what it refers to before it, itself last, and each once', async () => {
    expect(await closureOf({ a: ['b', 'c', 'a'], b: ['d'], c: ['d', 'c'], d: [], e: [] }, 'a')).toEqual({ paths: expect.arrayContaining(['a', 'b', 'c', 'd']) as string[], missing: [] })
    // Acyclic by construction: a number refers to smaller ones, or to itself.
    const graphs = fc.array(fc.array(fc.nat(), { maxLength: 5 }), { minLength: 1, maxLength: 40 })
    await fc.assert(fc.asyncProperty(graphs, async lists => {
      const graph = Object.fromEntries(lists.map((list, number) => [`p${number}`, [...new Set(list.map(one => `p${one % (number + 1)}`))]]))
      const root = `p${lists.length - 1}`
      const { paths, missing } = await closureOf(graph, root)
      expect(missing).toEqual([])
      expect(paths.at(-1)).toBe(root)
      expect(new Set(paths).size).toBe(paths.length)
      for (const [index, path] of paths.entries()) for (const reference of graph[path] ?? []) expect(paths.indexOf(reference)).toBeLessThanOrEqual(index)
    }))
  })

  test('says what is unknown or not verified, and goes no further there', async () => {
    expect(await closureOf({ a: ['b', 'x'], b: ['c'], c: ['y'] }, 'a', ['b'])).toEqual({ paths: ['a'], missing: ['b', 'x'] })
  })

  test('leaves others their turn while it is followed', async () => {
    const graph = Object.fromEntries(Array.from({ length: 5000 }, (_, number) => [`p${number}`, number === 0 ? [] : [`p${number - 1}`]]))
    let turns = 0
    const take = (): void => {
      turns++
      turn = setImmediate(take)
    }
    let turn = setImmediate(take)
    expect((await closureOf(graph, 'p4999')).paths).toHaveLength(5000)
    clearImmediate(turn)
    expect(turns).toBeGreaterThan(10)
  })

  test('that leads in a circle is none', async () => {
    const catalog = catalogOf({ a: ['b'], b: ['c'], c: ['b'] })
    await expectFailure(findClosure(catalog, memberAt(catalog, 'a') as Member), 'conflict', /found that b refers back to itself/)
  })

  test('that is too large is refused, whether its paths are there or not', async () => {
    const catalog = catalogOf({ a: Array.from({ length: MAX_CLOSURE_PATHS }, (_, number) => `x${number}`) })
    await expectFailure(findClosure(catalog, memberAt(catalog, 'a') as Member), 'too-large', /more than/)
  })
})
