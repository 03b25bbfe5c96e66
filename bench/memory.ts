import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeTree } from '../src/nar/remove.ts'
import { startPair } from './host.ts'
import { plantDisk, plantFiles } from './plant.ts'
import type { Result } from './result.ts'

const MIB = 1024 * 1024
const BUDGET_MIB = 200

const TREES: readonly (readonly [string, (path: string) => void])[] = [
  ['256 MiB', path => { plantDisk(path, 256 * MIB) }],
  ['1 GiB', path => { plantDisk(path, 1024 * MIB) }],
  ['4 GiB', path => { plantDisk(path, 4096 * MIB) }],
  ['20,000 files', path => { plantFiles(path, 20_000) }],
]

/** The most memory that was ever resident in two daemons, one of which imports and serves an image that the other fetches. */
export async function benchMemory(): Promise<Result> {
  const figures: Record<string, { value: number, unit: 'MiB' }> = {}
  for (const [name, plant] of TREES) {
    const [provider, receiver] = await peaks(plant)
    figures[`${name}, importing and serving`] = { value: provider, unit: 'MiB' }
    figures[`${name}, fetching`] = { value: receiver, unit: 'MiB' }
  }
  const most = Math.max(...Object.values(figures).map(({ value }) => value))
  return {
    name: "A daemon's resident memory at its peak",
    figures,
    ratios: [{ against: `${BUDGET_MIB} MiB`, ratio: most / BUDGET_MIB, budget: 1 }],
    notes: ['each tree is moved by two new daemons; the peak is what the kernel calls VmHWM'],
  }
}

async function peaks(plant: (path: string) => void): Promise<[number, number]> {
  const dir = await mkdtemp(join(tmpdir(), 'narvik-bench-'))
  const path = join(dir, 'tree')
  plant(path)
  const [provider, receiver] = await startPair()
  try {
    const { narHash } = await provider.client.import({ path })
    await receiver.client.fetch({ ref: narHash })
    return [(await provider.usage()).peak, (await receiver.usage()).peak]
  } finally {
    await Promise.all([provider.stop(), receiver.stop()])
    await removeTree(dir)
  }
}
