import type { Result } from '../result.ts'
import { type Update, updateByCasync } from './casync.ts'
import { plantVersions, type Versions } from './disk-image.ts'
import { Fleet } from './fleet.ts'
import { Star } from './network.ts'
import { mebibytes, type Settings } from './settings.ts'
import { requireSpace } from './workshop.ts'

/** Fast enough for a whole image, should a system bring that. */
const MBIT = 400
const MIB = 1024 * 1024

/** The next version of a disk that a host has: bytes on the wire, against the bytes that changed, and against casync. */
export async function benchNextVersion(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(1024, settings)
  await requireSpace(dir, 9 * size)
  const versions = await plantVersions(dir, size, settings.random)
  const ours = await updateByNarvik(versions, dir)
  const casync = await updateByCasync(versions, dir, MBIT)
  const { rewritten, added, inserted } = versions.changed
  const changed = rewritten + added + inserted
  const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`
  return {
    name: `Next version of a raw disk of ${size / MIB} MiB, of which ${mib(changed)} changed`,
    figures: {},
    table: {
      columns: ['', 'received', '× changed', '× whole', 'sent', 'time', 'CPU'],
      rows: [ours, casync].map(({ name, received, sent, seconds, cpuSeconds }) => [
        name, mib(received), (received / changed).toFixed(3), (received / size).toFixed(3), mib(sent), `${seconds.toFixed(1)} s`, `${cpuSeconds.toFixed(1)} s`,
      ]),
    },
    ratios: [
      { against: 'the bytes that changed, bytes on the wire', ratio: ours.received / changed },
      { against: 'casync, bytes on the wire', ratio: ours.received / casync.received },
      { against: "casync's chunks before compression, bytes on the wire", ratio: ours.received / casync.newChunkBytes },
      { against: 'casync, time', ratio: ours.seconds / casync.seconds },
    ],
    notes: [
      `rewritten in one piece ${mib(rewritten)}, in ${mib(added)} of blocks files were added, inserted between them ${mib(inserted)}`,
      `bytes are those of whole packets; the CPU time is that of the receiver; casync compresses its chunks, which are ${mib(casync.newChunkBytes)} before that, and Narvik does not`,
      `${MBIT} Mbit/s per link each way; SWARM_RANDOM=${settings.random} makes the same disks`,
    ],
  }
}

async function updateByNarvik({ old, next }: Versions, dir: string): Promise<Update> {
  await using star = await Star.build(2, { mbit: MBIT })
  await using fleet = await Fleet.start(dir, star.stations)
  const { seed, others: [receiver] } = fleet
  const stub = star.stations[1]
  if (receiver === undefined || stub === undefined) throw new Error('Cannot measure without a receiver')
  await receiver.client.fetch({ ref: (await seed.client.import({ path: old })).narHash })
  const { narHash } = await seed.client.import({ path: next })
  const before = { traffic: await stub.link.traffic(), usage: await receiver.usage() }
  const started = performance.now()
  await receiver.client.fetch({ ref: narHash })
  const seconds = (performance.now() - started) / 1000
  const after = { traffic: await stub.link.traffic(), usage: await receiver.usage() }
  return {
    name: 'narvik',
    seconds,
    received: after.traffic.received - before.traffic.received,
    sent: after.traffic.sent - before.traffic.sent,
    cpuSeconds: after.usage.cpuSeconds - before.usage.cpuSeconds,
  }
}
