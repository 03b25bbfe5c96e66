import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { removeTree } from '../../src/nar/remove.ts'
import type { Host } from '../host.ts'
import { plantDisk } from '../plant.ts'
import type { Result } from '../result.ts'
import { Fleet } from './fleet.ts'
import { Star } from './network.ts'
import { mebibytes, type Settings } from './settings.ts'
import { requireSpace } from './workshop.ts'

const BUDGET_MIB = 200
const SIZES_MIB = [256, 1024, 4096]
/** As fast as nine daemons on two cores can be kept busy with. */
const MBIT = 100
const SAMPLE_MS = 500
const PATIENCE = { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '900' }

interface Footprint {
  readonly size: number
  /** MiB at the peak: of the seed, of the greediest of those that fetched, of the one that was stopped. */
  readonly seed: number
  readonly fetcher: number
  readonly stalled: number
  /** MiB of one that fetched, in the mean over the time of the transfer. */
  readonly usual: number
  readonly seconds: number
}

/** What stays resident in a crowd of daemons as images grow, while one of those that take part stands still. */
export async function benchMemory(settings: Settings, dir: string): Promise<Result> {
  const footprints: Footprint[] = []
  for (const count of SIZES_MIB) footprints.push(await measure(mebibytes(count, settings), settings, dir))
  const [smallest, largest] = [footprints[0], footprints.at(-1)]
  const peak = ({ seed, fetcher }: Footprint): number => Math.max(seed, fetcher)
  const mib = (value: number): string => `${value.toFixed(0)} MiB`
  return {
    name: `Resident memory: a seed and ${settings.hosts} hosts, one of which is stopped on the way`,
    figures: {},
    table: {
      columns: ['image', 'seed, peak', 'host, peak', 'host, mean', 'stopped host, peak', 'last host'],
      rows: footprints.map(({ size, seed, fetcher, usual, stalled, seconds }) => [mib(size / 2 ** 20), mib(seed), mib(fetcher), mib(usual), mib(stalled), `${seconds.toFixed(0)} s`]),
    },
    ratios: [
      { against: `${BUDGET_MIB} MiB`, ratio: Math.max(...footprints.map(peak)) / BUDGET_MIB, budget: 1 },
      ...(smallest === undefined || largest === undefined ? [] : [{ against: `the peak with ${mib(smallest.size / 2 ** 20)}, that with ${mib(largest.size / 2 ** 20)}`, ratio: peak(largest) / peak(smallest) }]),
    ],
    notes: [`the peak is VmHWM, over the daemon's whole life; the mean is of a sample each ${SAMPLE_MS} ms; ${MBIT} Mbit/s per link each way`],
  }
}

async function measure(size: number, settings: Settings, parent: string): Promise<Footprint> {
  await requireSpace(parent, size * (3 + settings.hosts))
  const dir = join(parent, `memory-${size}`)
  await mkdir(dir)
  try {
    const file = join(dir, 'disk.raw')
    plantDisk(file, size)
    await using star = await Star.build(settings.hosts + 1, { mbit: MBIT })
    await using fleet = await Fleet.start(dir, star.stations, { env: PATIENCE })
    const [stalled, ...fetchers] = fleet.others
    if (stalled === undefined || fetchers.length === 0) throw new Error('Cannot measure with fewer than two hosts')
    const { narHash } = await fleet.seed.client.import({ path: file })
    const started = performance.now()
    stopOnTheWay(stalled, narHash)
    const samples = sample(fetchers)
    await Promise.all(fetchers.map(host => host.client.fetch({ ref: narHash })))
    const usual = samples.stop()
    const [seed, still, ...others] = await Promise.all([fleet.seed, stalled, ...fetchers].map(async host => (await host.usage()).peak))
    return { size, seed: seed ?? NaN, stalled: still ?? NaN, fetcher: Math.max(...others), usual, seconds: (performance.now() - started) / 1000 }
  } finally {
    await removeTree(dir)
  }
}

/** Has a host fetch, and stops its process when a third is there; whoever counts on it sees a peer that says nothing any more. */
function stopOnTheWay(host: Host, narHash: string): void {
  let stopped = false
  host.client.fetch({ ref: narHash }, {
    onProgress: ({ bytes, totalBytes }) => {
      if (stopped || totalBytes === null || bytes < totalBytes / 3) return
      stopped = true
      host.freeze()
    },
  }).catch(() => undefined)
}

/** Samples what is resident until it is stopped; then answers with the mean. */
function sample(hosts: readonly Host[]): { stop: () => number } {
  const values: number[] = []
  const timer = setInterval(() => {
    for (const host of hosts) host.usage().then(({ resident }) => values.push(resident), () => undefined)
  }, SAMPLE_MS)
  return {
    stop: () => {
      clearInterval(timer)
      return values.reduce((total, value) => total + value, 0) / values.length
    },
  }
}
