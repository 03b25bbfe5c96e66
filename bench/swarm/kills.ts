import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { STREAM_WINDOW_BYTES } from '../../src/limits.ts'
import type { Host, HostOptions } from '../host.ts'
import { plantDisk } from '../plant.ts'
import type { Result } from '../result.ts'
import { Fleet } from './fleet.ts'
import type { Namespace } from './namespace.ts'
import { QUEUE_MS, Star, type Stub } from './network.ts'
import { Random } from './random.ts'
import { mebibytes, type Settings } from './settings.ts'

const PROVIDERS = 2
/** Fast enough to be no matter, slow enough for every kill to fall into the transfer. */
const MBIT = 400
const MIB = 1024 * 1024

/** The receiver of one image is killed again and again, at random moments; everything that crosses its wire is counted. */
export async function benchKills(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(1024, settings)
  const file = join(dir, 'kills.raw')
  plantDisk(file, size)
  await using star = await Star.build(PROVIDERS + 1, { mbit: MBIT })
  const [stub, ...stations] = star.stations
  if (stub === undefined) throw new Error('Cannot measure without a receiver')
  await using fleet = await Fleet.start(dir, stations)
  const [narHash = ''] = await Promise.all(fleet.hosts.map(async host => (await host.client.import({ path: file })).narHash))

  const random = new Random(settings.random, 'kills')
  const moments = Array.from({ length: settings.kills }, () => random.fraction() * size).sort((a, b) => a - b)
  const before = await stub.link.traffic()
  const { inFlight, host } = await fetchThroughKills({ fleet, stub, narHash, moments }, { bootstrap: [fleet.seed] })
  const after = await stub.link.traffic()
  const { results } = await host.client.verify({ ref: narHash })
  const crossed = after.receivedPayload - before.receivedPayload
  const allowed = size + inFlight.reduce((total, bytes) => total + bytes, 0)
  const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`
  return {
    name: `Kills: the receiver of ${size / MIB} MiB is killed ${settings.kills} times, ${PROVIDERS} peers have it, ${MBIT} Mbit/s per link`,
    figures: {},
    table: {
      columns: ['', 'bytes', '× size'],
      rows: [
        ['crossed the wire, without the headers of packets', mib(crossed), (crossed / size).toFixed(4)],
        ['the same with them', mib(after.received - before.received), ((after.received - before.received) / size).toFixed(4)],
        ['size, and what was in flight at each kill', mib(allowed), (allowed / size).toFixed(4)],
      ],
    },
    ratios: [{ against: 'the size and what was in flight at each kill, bytes on the wire', ratio: crossed / allowed, budget: 1 }],
    notes: [
      `the image ends ${(await host.client.show(narHash)).state}, and a further proof of it says ${results[0]?.verdict ?? 'nothing'}`,
      `in flight at a kill: what the receiver's kernel held unread, as it says; what waited in the queue of the link, at most ${QUEUE_MS} ms of it; and one window of ${STREAM_WINDOW_BYTES / MIB} MiB for each peer that sends, which is what the daemon may hold and not have proven; together at most ${mib(Math.max(0, ...inFlight))}`,
      `beyond the size ${mib(crossed - size)} crossed, ${mib((crossed - size) / settings.kills)} for each kill`,
      `the moments are spread over the bytes of the transfer; SWARM_RANDOM=${settings.random} replays them`,
    ],
  }
}

interface Victim {
  readonly fleet: Fleet
  readonly stub: Stub
  readonly narHash: string
  /** Bytes received by its device at which it is killed, ascending. */
  readonly moments: readonly number[]
}

/** Resolves when the image is there, with the bytes that were in flight at each kill. */
async function fetchThroughKills({ fleet, stub, narHash, moments }: Victim, options: HostOptions): Promise<{ inFlight: number[], host: Host }> {
  const inFlight: number[] = []
  const start = stub.namespace.deviceBytes('eth0').received
  for (const moment of moments) {
    const host = await fleet.join(stub, options)
    // It ends with the daemon; what the next one does is another fetch.
    host.client.fetch({ ref: narHash }).catch(() => undefined)
    while (stub.namespace.deviceBytes('eth0').received - start < moment) await new Promise(resolve => setTimeout(resolve, 5))
    inFlight.push(unread(stub.namespace) + MBIT * 1e6 / 8 * QUEUE_MS / 1000 + PROVIDERS * STREAM_WINDOW_BYTES)
    await host.kill('SIGKILL')
  }
  const host = await fleet.join(stub, options)
  await host.client.fetch({ ref: narHash })
  return { inFlight, host }
}

/** Bytes that have arrived in a namespace and that no process has read: the second number of the fifth field, in hex, of each connection. */
function unread({ pid }: Namespace): number {
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'latin1').trim().split('\n').slice(1)
  return lines.reduce((total, line) => total + parseInt(line.trim().split(/\s+/)[4]?.split(':')[1] ?? '0', 16), 0)
}
