import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isNarvikError } from '../../../src/errors.ts'
import { parseNar } from '../../../src/nar/parse.ts'
import { removeTree } from '../../../src/nar/remove.ts'
import { restoreNar } from '../../../src/nar/restore.ts'
import { directory, narBytes, regular, str, symlink, tokens } from '../../helpers/nar-bytes.ts'
import { anyTree, harvest, plant, streamOf, withTemporaryDirectory } from '../../helpers/trees.ts'

const RUNS = process.env['SLOW'] === '1' ? 50_000 : 500

type Mutation =
  | { readonly kind: 'flip', readonly at: number, readonly byte: number }
  | { readonly kind: 'cut', readonly at: number }
  | { readonly kind: 'repeat' | 'drop', readonly at: number, readonly length: number }
  | { readonly kind: 'length', readonly at: number, readonly value: bigint }
  | { readonly kind: 'swap', readonly at: number, readonly to: number }

const position = fc.double({ min: 0, max: 1, noNaN: true })
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: position, byte: fc.integer({ min: 1, max: 255 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: position }),
  fc.record({ kind: fc.constantFrom('repeat' as const, 'drop' as const), at: position, length: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ kind: fc.constant('length' as const), at: position, value: fc.oneof(fc.bigInt({ min: 0n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })) }),
  fc.record({ kind: fc.constant('swap' as const), at: position, to: position }),
)

/** All but `flip` and `cut` work on whole words of 8 bytes, as the format does. */
function mutate(nar: Buffer, change: Mutation): Buffer {
  const at = Math.floor(change.at * (nar.length - 1))
  const word = at - at % 8
  switch (change.kind) {
    case 'flip': { const copy = Buffer.from(nar); copy[at] = (copy[at] ?? 0) ^ change.byte; return copy }
    case 'cut': return nar.subarray(0, at)
    case 'repeat': return Buffer.concat([nar.subarray(0, word), nar.subarray(word, word + change.length * 8), nar.subarray(word)])
    case 'drop': return Buffer.concat([nar.subarray(0, word), nar.subarray(word + change.length * 8)])
    case 'length': { const copy = Buffer.concat([nar, Buffer.alloc(8)]); copy.writeBigUInt64LE(change.value, word); return copy.subarray(0, nar.length) }
    case 'swap': {
      const other = Math.floor(change.to * (nar.length - 1))
      const copy = Buffer.from(nar)
      nar.copy(copy, word, other - other % 8, other - other % 8 + 16)
      return copy
    }
  }
}

describe('a mutated NAR', () => {
  it('is restored whole, inside its destination, or refused with nothing left', async () => {
    await withTemporaryDirectory(async outside => {
      writeFileSync(join(outside, 'canary'), 'untouched')
      mkdirSync(join(outside, 'inside'))
      const dest = join(outside, 'inside', 'dest')
      const small = anyTree.filter(tree => narBytes(tree).length < 20_000)
      await fc.assert(fc.asyncProperty(small, fc.array(mutation, { minLength: 1, maxLength: 3 }), fc.integer({ min: 1, max: 5000 }), async (tree, mutations, cut) => {
        const nar = mutations.reduce((bytes, change) => bytes.length === 0 ? bytes : mutate(bytes, change), narBytes(tree))
        const outcome = await restoreNar(streamOf(nar, cut), dest).catch((error: unknown) => error)
        if (outcome instanceof Error) {
          if (!isNarvikError(outcome, 'invalid-nar', 'disk-full', 'io-error')) throw outcome
          expect(readdirSync(join(outside, 'inside'))).toEqual([])
        } else {
          expect(narBytes(harvest(dest))).toEqual(nar)
          await removeTree(dest)
        }
        expect(readdirSync(outside).sort()).toEqual(['canary', 'inside'])
      }), { numRuns: RUNS })
      expect(readFileSync(join(outside, 'canary'), 'utf8')).toBe('untouched')
    })
  })

  it('takes no memory for lengths that it only claims', async () => {
    const before = process.memoryUsage().arrayBuffers
    for (const claimed of [2n ** 31n, 2n ** 40n, 2n ** 43n, 2n ** 53n, 2n ** 63n]) {
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(claimed)
      const nar = tokens('nix-archive-1', '(', 'type', 'regular', 'contents', length, Buffer.alloc(8))
      await expect(parseNar(streamOf(nar), { directory: ignore, leave: ignore, regular: ignore, contents: ignore, symlink: ignore })).rejects.toMatchObject({ code: 'invalid-nar' })
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024)
  })
})

describe('restore', () => {
  it('never writes through a symlink that the NAR brings', async () => {
    await withTemporaryDirectory(async outside => {
      mkdirSync(join(outside, 'target'))
      const entries = tokens('entry', '(', 'name', 'a', 'node', '(', 'type', 'symlink', 'target', str(join(outside, 'target')), ')', ')')
      const twice = tokens('entry', '(', 'name', 'a', 'node', '(', 'type', 'directory', tokens('entry', '(', 'name', 'x', 'node', '(', 'type', 'regular', 'contents', str('x'), ')', ')'), ')', ')')
      const nar = tokens('nix-archive-1', '(', 'type', 'directory', entries, twice, ')')
      await expect(restoreNar(streamOf(nar), join(outside, 'dest'))).rejects.toMatchObject({ code: 'invalid-nar' })
      expect(readdirSync(join(outside, 'target'))).toEqual([])
      expect(readdirSync(outside)).toEqual(['target'])
    })
  })

  it.each(['file', 'directory', 'symlink', 'dangling symlink'])('refuses a destination where there is a %s, and leaves it', async kind => {
    await withTemporaryDirectory(async outside => {
      const there = { 'file': regular('there'), 'directory': directory(), 'symlink': symlink('.'), 'dangling symlink': symlink('nowhere') }[kind] ?? regular('')
      plant(join(outside, 'dest'), there)
      for (const tree of [regular('new'), directory({ a: regular('new') }), symlink('new')]) {
        await expect(restoreNar(streamOf(narBytes(tree)), join(outside, 'dest'))).rejects.toMatchObject({ code: 'conflict' })
        await expect(restoreNar(streamOf(narBytes(tree)), join(outside, 'dest/'))).rejects.toMatchObject({ code: 'conflict' })
      }
      expect(harvest(join(outside, 'dest'))).toEqual(there)
    })
  })

  it('stops when it is told to, and leaves nothing', async () => {
    await withTemporaryDirectory(async outside => {
      const controller = new AbortController()
      const source = async function* (): AsyncGenerator<Uint8Array> {
        yield* streamOf(narBytes(directory({ a: regular('x') })).subarray(0, 240))
        controller.abort(new Error('enough'))
        yield await Promise.resolve(Buffer.alloc(8))
      }
      await expect(restoreNar(source(), join(outside, 'dest'), { signal: controller.signal })).rejects.toThrow('enough')
      expect(readdirSync(outside)).toEqual([])
    })
  })
})

function ignore(): void {
  // Nothing is made of what is read.
}
