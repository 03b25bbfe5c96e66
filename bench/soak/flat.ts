import type { Table } from '../result.ts'
import { median } from '../result.ts'
import type { Member, Sample } from './member.ts'

/** Samples with which something can be said. */
const ENOUGH = 9
/** By how much the last third may lie above the second: what a garbage collector puts off, and connections that come and go. */
const SLACK = {
  resident: { share: 0.1, more: 8 },
  heap: { share: 0.1, more: 4 },
  files: { share: 0, more: 3 },
  handles: { share: 0, more: 6 },
} as const satisfies Record<keyof Sample, unknown>

/** What grows on a host, from the second third of its samples to the last; the first is what every daemon needs to get going. */
export function growthOf({ number, samples }: Member, keys: readonly (keyof Sample)[]): string[] {
  if (samples.length < ENOUGH) return []
  const [, second, last] = thirds(samples)
  return keys.flatMap(key => {
    const [before, after] = [levelOf(second, key), levelOf(last, key)]
    const { share, more } = SLACK[key]
    return after <= before * (1 + share) + more ? [] : [`host ${number}: ${key} grew from ${before.toFixed(1)} to ${after.toFixed(1)}`]
  })
}

export function isEnough(members: readonly Member[]): boolean {
  return members.every(({ samples }) => samples.length >= ENOUGH)
}

export function tableOf(members: readonly Member[]): Table {
  const keys: (keyof Sample)[] = ['resident', 'heap', 'files', 'handles']
  return {
    columns: ['host', 'restarts', 'kills', 'cuts', ...keys.map(key => key === 'resident' || key === 'heap' ? `${key}, MiB` : key)],
    rows: members.map(({ number, restarts, kills, cuts, samples }) => [
      String(number), String(restarts), String(kills), String(cuts),
      ...keys.map(key => thirds(samples).filter(part => part.length > 0).map(part => levelOf(part, key).toFixed(0)).join(' → ')),
    ]),
  }
}

/** Where a garbage collector has not been yet says nothing: of the heap the lowest counts, of what the kernel sees the median. */
function levelOf(samples: readonly Sample[], key: keyof Sample): number {
  const values = samples.map(sample => sample[key])
  return key === 'heap' ? Math.min(...values) : median(values)
}

function thirds(samples: readonly Sample[]): [readonly Sample[], readonly Sample[], readonly Sample[]] {
  const length = Math.ceil(samples.length / 3)
  return [samples.slice(0, length), samples.slice(length, 2 * length), samples.slice(2 * length)]
}
