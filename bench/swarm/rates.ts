import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { removeTree } from '../../src/nar/remove.ts'
import type { Host } from '../host.ts'
import { plantDisk } from '../plant.ts'
import type { Result } from '../result.ts'
import { booksOf } from '../soak/books.ts'
import { Fleet } from './fleet.ts'
import { type Link, Star } from './network.ts'
import { mebibytes, type Settings } from './settings.ts'

const MIB = 1024 * 1024
/** Far above the limits, and far below what a processor can do: what is measured is the limit. */
const MBIT = 100
const GLOBAL = MIB
const PER_PEER = MIB / 2
const TOLERANCE = 0.1
const SAMPLE_MS = 200
/** Images that a host receives at once: enough of each peer for there to be always one that has bytes to send. */
const AT_ONCE = 6
/** The part of a transfer that is measured: what windows and buckets take at once is before it, and after it there may be less to send than may be. */
const FROM = 0.25
const TO = 0.9

type Direction = 'upload' | 'download'
/** An image in many chunks, or many that come whole in one stream each, as NARs of at most 1 MiB do. */
type Kind = 'chunks' | 'nar'

interface Case {
  readonly kind: Kind
  readonly direction: Direction
  readonly perPeer: boolean
}

/** Whether limits hold, by what crosses the wires: a host with a limit sends to two others at once, or receives from both. */
export async function benchRates(settings: Settings, dir: string): Promise<Result> {
  const cases = (['upload', 'download'] as const).flatMap(direction => [false, true].flatMap(perPeer => (['chunks', 'nar'] as const).map(kind => ({ kind, direction, perPeer }))))
  const rows: string[][] = []
  const ratios: number[] = []
  for (const each of cases) {
    const measured = await measure(each, settings, dir)
    const limit = each.perPeer ? PER_PEER : GLOBAL
    ratios.push(...measured.map(rate => rate / limit))
    rows.push([`${each.direction}, ${each.perPeer ? 'each of two peers' : 'all peers'}`, each.kind, kib(limit), measured.map(kib).join(', '), measured.map(rate => (rate / limit).toFixed(3)).join(', ')])
  }
  const worst = Math.max(...ratios.map(ratio => Math.abs(ratio - 1)))
  return {
    name: 'Rates: what crosses the wire under a limit',
    figures: {},
    table: { columns: ['limit', 'in', 'KiB/s', 'measured, KiB/s', 'measured / limit'], rows },
    ratios: [{ against: `the ${TOLERANCE * 100} % within which a limit holds, the deviation that is furthest off`, ratio: worst / TOLERANCE, budget: 1 }],
    notes: [
      `bytes as the shapers of the links count them, without the headers of packets, with all that TLS, yamux and the DHT add; every ${SAMPLE_MS} ms, from ${FROM * 100} to ${TO * 100} % of the transfer, and the line through all of these`,
      `at most as much as the burst comes on top, once: a quarter of a second of the rate or 256 KiB when sending, a window of 1 MiB for each stream when receiving; ${MBIT} Mbit/s per link each way`,
    ],
  }
}

/** Bytes per second: over the link of the host with the limit, or over those of the two others. */
async function measure({ kind, direction, perPeer }: Case, settings: Settings, parent: string): Promise<number[]> {
  const dir = join(parent, `rates-${kind}-${direction}-${perPeer}`)
  await mkdir(dir)
  try {
    await using star = await Star.build(3, { mbit: MBIT })
    const [stub, ...stubs] = star.stations
    if (stub === undefined) throw new Error('Cannot measure without a host')
    await using fleet = await Fleet.create(dir)
    const env = { NARVIK_FETCH_AT_ONCE: String(AT_ONCE) }
    const variable = `NARVIK_RATES_${direction.toUpperCase()}${perPeer ? '_PER_PEER' : ''}`
    const limited = await fleet.join(stub, { env: { ...env, [variable]: String(perPeer ? PER_PEER : GLOBAL) } })
    const others = [await fleet.join(stubs[0] ?? stub, { env, bootstrap: [limited] }), await fleet.join(stubs[1] ?? stub, { env, bootstrap: [limited] })]
    await Promise.all(fleet.hosts.map(host => host.untilPeers(2)))
    // Each of the two has images of its own: what one of them had from the other would not be the limited host's.
    const work = await Promise.all(others.map(async (other, index) => {
      const holder = direction === 'upload' ? limited : other
      const refs = await plant(holder, { kind, dir: join(dir, `images-${index}`), settings })
      return { fetcher: direction === 'upload' ? other : limited, refs }
    }))
    const meters = (perPeer ? stubs : [stub]).map(({ link }) => new Meter(link, (direction === 'upload') === perPeer ? 'received' : 'sent'))
    // In turns, so that a host that fetches from both has something to do with both.
    const turns = Array.from({ length: Math.max(...work.map(({ refs }) => refs.length)) }, (_, turn) => work.flatMap(({ fetcher, refs }) => refs.slice(turn, turn + 1).map(ref => ({ fetcher, ref })))).flat()
    await Promise.all(turns.map(({ fetcher, ref }) => fetcher.client.fetch({ ref })))
    await requireKind(limited, { kind, direction })
    return await Promise.all(meters.map(meter => meter.rate()))
  } finally {
    await removeTree(dir)
  }
}

/** Has the host's own books say what it was that crossed the wire: a size on the wrong side of a threshold would measure the other kind. */
async function requireKind(host: Host, { kind, direction }: Pick<Case, 'kind' | 'direction'>): Promise<void> {
  const books = booksOf(await host.client.metrics())
  const moved = (key: Kind): number => books.get(key)?.[direction === 'upload' ? 'sent' : 'received'] ?? 0
  const [meant, other] = kind === 'nar' ? [moved('nar'), moved('chunks')] : [moved('chunks'), moved('nar')]
  if (meant === 0 || other > 0) throw new Error(`Cannot measure ${kind}: found ${meant} bytes of it and ${other} of the other kind, needed all in ${kind}`)
}

/** Imports as many MiB as are to be fetched from a host, and answers with what they are called. */
async function plant(holder: Host, { kind, dir, settings }: { readonly kind: Kind, readonly dir: string, readonly settings: Settings }): Promise<string[]> {
  await mkdir(dir)
  const size = mebibytes(24, settings)
  const sizes = kind === 'chunks' ? [size] : Array.from({ length: size / MIB * 2 }, () => MIB / 2)
  const refs: string[] = []
  for (const [number, bytes] of sizes.entries()) {
    const path = join(dir, `${number}.raw`)
    plantDisk(path, bytes)
    refs.push((await holder.client.import({ path })).narHash)
  }
  return refs
}

/** Notes what has crossed a link, from when it is made until it is asked for the rate. */
class Meter {
  readonly #link: Link
  readonly #way: 'sent' | 'received'
  readonly #samples: { readonly at: number, readonly bytes: number }[] = []
  readonly #noting: Promise<void>
  #ended = false

  constructor(link: Link, way: 'sent' | 'received') {
    this.#link = link
    this.#way = way
    this.#noting = this.#note()
    // Whoever asks for the rate is told. Where the measurement has ended with an error its network is gone, and that error counts.
    this.#noting.catch(() => undefined)
  }

  /** Bytes per second over the part of the transfer that counts. */
  async rate(): Promise<number> {
    this.#ended = true
    await this.#noting
    const [first, last] = [this.#samples[0], this.#samples.at(-1)]
    if (first === undefined || last === undefined) return NaN
    const total = last.bytes - first.bytes
    const within = this.#samples.filter(({ bytes }) => bytes >= first.bytes + total * FROM && bytes <= first.bytes + total * TO)
    return slopeOf(within.map(({ at, bytes }) => [at / 1000, bytes]))
  }

  async #note(): Promise<void> {
    while (!this.#ended) {
      const traffic = await this.#link.traffic()
      this.#samples.push({ at: performance.now(), bytes: this.#way === 'sent' ? traffic.sentPayload : traffic.receivedPayload })
      await new Promise(resolve => setTimeout(resolve, SAMPLE_MS))
    }
  }
}

/** Of the line through all points with the least squares: what happens to come at the first or the last of them weighs no more than the rest. */
function slopeOf(points: readonly (readonly [number, number])[]): number {
  const mean = (index: 0 | 1): number => points.reduce((sum, point) => sum + point[index], 0) / points.length
  const [x, y] = [mean(0), mean(1)]
  const [above, below] = points.reduce(([a, b], point) => [a + (point[0] - x) * (point[1] - y), b + (point[0] - x) ** 2], [0, 0])
  return above / below
}

function kib(bytes: number): string {
  return (bytes / 1024).toFixed(0)
}
