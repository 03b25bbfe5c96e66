import { join } from 'node:path'
import { plantDisk } from '../plant.ts'
import type { Result } from '../result.ts'
import { Fleet } from './fleet.ts'
import { Row } from './network.ts'
import { mebibytes, type Settings } from './settings.ts'

const BUDGET = 1.1
/** C can only wait until B has something. */
const PATIENCE = { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '900' }

/** C reaches only B, and B fetches from A: how much later C ends than B. */
export async function benchChain(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(256, settings)
  const file = join(dir, 'chain.raw')
  plantDisk(file, size)
  await using row = await Row.build(3, { mbit: settings.mbit })
  const [stationA, stationB, stationC] = row.stations
  if (stationA === undefined || stationB === undefined || stationC === undefined) throw new Error('Cannot measure without three stations')
  await using fleet = await Fleet.create(dir)
  const a = await fleet.join(stationA, { env: PATIENCE })
  const b = await fleet.join(stationB, { env: PATIENCE, bootstrap: [a] })
  const c = await fleet.join(stationC, { env: PATIENCE, bootstrap: [b] })
  await Promise.all([a.untilPeers(1), b.untilPeers(2), c.untilPeers(1)])

  const { narHash } = await a.client.import({ path: file })
  const started = performance.now()
  const [afterB = NaN, afterC = NaN] = await Promise.all([b, c].map(async host => {
    await host.client.fetch({ ref: narHash })
    return (performance.now() - started) / 1000
  }))
  const [first, second] = await Promise.all(row.links.map(async link => (await link.traffic()).sent))
  return {
    name: `Chain: C reaches only B, B fetches ${size / 2 ** 20} MiB from A, ${settings.mbit} Mbit/s per link each way`,
    figures: {
      'size / link': { value: size * 8 / (settings.mbit * 1e6), unit: 's' },
      'B has it': { value: afterB, unit: 's' },
      'C has it': { value: afterC, unit: 's' },
    },
    ratios: [{ against: "B's time, time of C", ratio: afterC / afterB, budget: BUDGET }],
    notes: [`both start at the same moment; A sent ${mib(first)} to B, and B ${mib(second)} to C, since they were started`],
  }
}

function mib(bytes = 0): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`
}
