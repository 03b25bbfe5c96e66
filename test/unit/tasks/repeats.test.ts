import fc from 'fast-check'
import { expect, it } from 'vitest'
import { blake3Of } from '../../../src/image/blake3.ts'
import { ChunkList } from '../../../src/image/chunk-list.ts'
import { toRuns } from '../../../src/image/chunk-set.ts'
import { copyOwn, Repeats } from '../../../src/tasks/swarm/repeats.ts'

const bytesOf = (kind: number): Buffer => Buffer.alloc(100, kind + 1)

/** A list in which chunks of one kind have the same bytes. */
function listOf(kinds: readonly number[]): ChunkList {
  return new ChunkList({ offsets: Float64Array.from([...kinds, 0], (_, chunk) => chunk * 100), hashes: Uint8Array.from(Buffer.concat(kinds.map(kind => blake3Of(bytesOf(kind))))) })
}

const chunksThatRepeat = fc.array(fc.record({ kind: fc.nat(4), missing: fc.boolean() }), { minLength: 1, maxLength: 30 })

it('of the missing chunks that are alike one is asked for, and all come', () => {
  fc.assert(fc.property(chunksThatRepeat, given => {
    const isMissing = (chunk: number): boolean => given[chunk]?.missing === true
    const repeats = new Repeats(listOf(given.map(({ kind }) => kind)), isMissing)
    const asked = given.flatMap(({ missing }, chunk) => missing && !repeats.copies.has(chunk) ? [chunk] : [])
    expect(new Set(asked.map(chunk => given[chunk]?.kind)).size).toBe(asked.length)
    const come = [...asked]
    for (const run of toRuns(asked)) {
      const bytes = Buffer.concat(Array.from({ length: run.count }, (_, index) => bytesOf(given[run.first + index]?.kind ?? 0)))
      for (const [copy, same] of repeats.of(run, bytes)) {
        expect(same).toEqual(bytesOf(given[copy]?.kind ?? 0))
        come.push(copy)
      }
    }
    expect(come.sort((x, y) => x - y)).toEqual(given.flatMap(({ missing }, chunk) => missing ? [chunk] : []))
  }))
})

it('what an image has in one place is copied to where it lacks it, unless it is damaged there', async () => {
  const found = fc.constantFrom('right', 'wrong', 'unreadable')
  await fc.assert(fc.asyncProperty(chunksThatRepeat, fc.array(found, { minLength: 30, maxLength: 30 }), async (given, disk) => {
    const there = given.map(({ missing }) => !missing)
    await copyOwn({
      chunks: listOf(given.map(({ kind }) => kind)),
      isMissing: chunk => there[chunk] !== true,
      read: chunk => Promise.resolve(disk[chunk] === 'unreadable' ? undefined : bytesOf(disk[chunk] === 'right' ? given[chunk]?.kind ?? 0 : 9)),
      write: (chunk, bytes) => {
        expect(there[chunk]).toBe(false)
        expect(bytes).toEqual(bytesOf(given[chunk]?.kind ?? 0))
        there[chunk] = true
        return Promise.resolve()
      },
    })
    const had = new Set(given.filter(({ missing }, chunk) => !missing && disk[chunk] === 'right').map(({ kind }) => kind))
    expect(there).toEqual(given.map(({ missing, kind }) => !missing || had.has(kind)))
  }))
})
