import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { plantDisk } from '../plant.ts'
import type { Result } from '../result.ts'
import { type CrowdSystem, release } from './crowd.ts'
import { narvik } from './narvik-crowd.ts'
import { CONGESTION, type Speed, Star } from './network.ts'
import { plainHttp } from './plain-http.ts'
import { mebibytes, type Settings } from './settings.ts'
import { type SimulatedCrowd, simulateCrowd } from './simulated.ts'
import { torrent } from './torrent.ts'
import { requireSpace } from './workshop.ts'

const BUDGETS = { time: 1.25, seed: 1.5, simulation: 1.15 }
const SYSTEMS: readonly CrowdSystem[] = [narvik, torrent({ superSeeding: false }), torrent({ superSeeding: true }), plainHttp]

interface Run {
  readonly name: string
  /** Seconds after the first start, of the first and the last host. */
  readonly first: number
  readonly last: number
  readonly seedSent: number
  readonly cpuSeconds: number
  readonly peak: number
  readonly books: readonly string[]
}

/** One image on one host, wanted by all the others at once; the same with other programs, in the same network. */
export async function benchFlashCrowd(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(256, settings)
  await requireSpace(dir, size * (2 + (SYSTEMS.length + 1) * settings.hosts))
  const file = join(dir, 'crowd.raw')
  plantDisk(file, size)
  const runs: Run[] = []
  for (const system of SYSTEMS) runs.push(await measure(system, settings, { file, dir }))
  const own = await ownCongestion()
  if (own !== CONGESTION) runs.push(await measure({ ...narvik, name: `narvik, with ${own}` }, { ...settings, congestion: own }, { file, dir }))
  return report(runs, simulateCrowd(settings, size), size, settings)
}

/** What the machine itself would have its connections use. */
async function ownCongestion(): Promise<string> {
  return (await readFile('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8')).trim()
}

async function measure(system: CrowdSystem, { hosts, ...speed }: Settings & Speed, { file, dir }: { file: string, dir: string }): Promise<Run> {
  await using star = await Star.build(hosts + 1, speed)
  const [seed] = star.stations
  if (seed === undefined) throw new Error('Cannot measure without a seed')
  await using crowd = await system.prepare(star.stations, file, dir)
  const before = { traffic: await seed.link.traffic(), usage: await crowd.usage() }
  const finished = await release(crowd.fetches)
  const after = { traffic: await seed.link.traffic(), usage: await crowd.usage() }
  return {
    name: system.name,
    first: Math.min(...finished),
    last: Math.max(...finished),
    seedSent: after.traffic.sent - before.traffic.sent,
    cpuSeconds: after.usage.cpuSeconds - before.usage.cpuSeconds,
    peak: after.usage.peak,
    books: await crowd.books?.() ?? [],
  }
}

function report(runs: readonly Run[], simulated: SimulatedCrowd, size: number, { hosts, mbit }: Settings): Result {
  const limit = size * 8 / (mbit * 1e6)
  const [ours, ...others] = runs
  if (ours === undefined) throw new Error('Cannot report without a run')
  const torrents = others.filter(({ name }) => name.startsWith('libtorrent'))
  const best = torrents.reduce((one, other) => other.last < one.last ? other : one, torrents[0] ?? ours)
  const star = others.find(({ name }) => name === plainHttp.name) ?? ours
  return {
    name: `Flash crowd: one seed, ${hosts} hosts that start within a second, an image of ${size / 2 ** 20} MiB, ${mbit} Mbit/s per link each way`,
    figures: { 'size / link': { value: limit, unit: 's' } },
    table: {
      columns: ['', 'last host', '× size/link', 'first host', 'seed sent', '× size', 'CPU of all', 'peak of one'],
      rows: [
        ...runs.map(run => [...timesOf(run, size, limit), `${run.cpuSeconds.toFixed(1)} s`, `${run.peak.toFixed(0)} MiB`]),
        [...timesOf({ name: 'narvik, simulated', ...simulated }, size, limit), '', ''],
      ],
    },
    ratios: [
      { against: 'size / link, time of the last host', ratio: ours.last / limit, budget: BUDGETS.time },
      { against: 'the size, bytes that the seed sent', ratio: ours.seedSent / size, budget: BUDGETS.seed },
      { against: `${best.name}, time of the last host`, ratio: ours.last / best.last },
      { against: `${best.name}, bytes that the seed sent`, ratio: ours.seedSent / best.seedSent },
      { against: `${star.name}, time of the last host`, ratio: ours.last / star.last },
      { against: 'each other, times of the last host in the network and in its simulation, the longer over the shorter', ratio: apart(ours.last, simulated.last), budget: BUDGETS.simulation },
    ],
    notes: [
      ...ours.books,
      'bytes are those of whole packets, as the shapers of the links count them: 4.6 % more than what they carry, when they are full',
      'Narvik encrypts, checks each chunk and the whole, and makes it durable; libtorrent checks each piece, in plain TCP; curl checks nothing',
      'the peak of the star is that of the server, its CPU time also that of the downloads',
    ],
  }
}

function timesOf({ name, last, first, seedSent }: Pick<Run, 'name' | 'last' | 'first' | 'seedSent'>, size: number, limit: number): string[] {
  return [name, `${last.toFixed(2)} s`, (last / limit).toFixed(3), `${first.toFixed(2)} s`, `${(seedSent / 2 ** 20).toFixed(1)} MiB`, (seedSent / size).toFixed(3)]
}

function apart(one: number, other: number): number {
  return Math.max(one / other, other / one)
}
