import { execa } from 'execa'
import { describe, expect, it } from 'vitest'
import { fuzz, type Target } from '../../fuzz/engine.ts'
import { readKept } from '../../fuzz/kept.ts'
import { TARGETS } from '../../fuzz/targets.ts'

/** Runs of each target: some seconds for all of them on a loaded machine. */
const RUNS = 1500

describe('every decoder', () => {
  it.each(Object.entries(TARGETS))('%s takes or refuses what was kept of earlier runs, and what once went wrong', async (name, { seeds, run }) => {
    for (const bytes of [...seeds(), ...readKept('regressions', name), ...readKept('corpus', name)]) await run(bytes)
  })

  it('stands a short run with a fixed seed', async () => {
    const { stdout, stderr, exitCode } = await execa(process.execPath, ['test/fuzz/main.ts', 'all', '--seconds', '2', '--runs', String(RUNS), '--seed', '1'], { reject: false })
    expect([exitCode, stderr]).toEqual([0, ''])
    // A target whose blocks are not counted is not guided.
    const blocks = [...stdout.matchAll(/^\S+: \d+ runs, (\d+) blocks/gm)].map(([, count]) => Number(count))
    expect(blocks).toHaveLength(Object.keys(TARGETS).length)
    expect(Math.min(...blocks)).toBeGreaterThan(5)
  })
})

/** Goes wrong where four bytes are right one after the other; `looks` says whether each right one can be seen from outside. */
function planted({ looks }: { looks: boolean }): { target: Target, code: Parameters<typeof fuzz>[1] } {
  const counters = new Uint8Array(8)
  const secret = [0x9e, 0x03, 0xc5, 0x71]
  const run = (bytes: Uint8Array): void => {
    for (const [index, byte] of secret.entries()) {
      if (bytes[index] !== byte) return
      if (looks) counters[index] = 1
    }
    throw new Error('found')
  }
  return { target: { seeds: () => [Buffer.from('seed')], run }, code: { counters, blocks: () => counters.length, words: new Set(), numbers: new Set() } }
}

describe('the fuzzer', () => {
  it('finds byte by byte what nobody would guess at once, because it sees which blocks are reached', async () => {
    const isOver = (runs: number): boolean => runs >= 400_000
    const guided = planted({ looks: true })
    const blind = planted({ looks: false })
    expect((await fuzz(guided.target, guided.code, { seed: 1, corpus: [], isOver })).finding?.error).toEqual(new Error('found'))
    expect((await fuzz(blind.target, blind.code, { seed: 1, corpus: [], isOver })).finding).toBeUndefined()
  })

  it('does the same again with the same seed', async () => {
    const runsWith = async (seed: number): Promise<number> => {
      const { target, code } = planted({ looks: true })
      return (await fuzz(target, code, { seed, corpus: [], isOver: runs => runs >= 400_000 })).runs
    }
    const [first, again, other] = [await runsWith(5), await runsWith(5), await runsWith(6)]
    expect(again).toBe(first)
    expect(other).not.toBe(first)
  })
})
