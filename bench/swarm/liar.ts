import { join } from 'node:path'
import type { ImageDetailsJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { Host } from '../host.ts'
import { plantDisk } from '../plant.ts'
import type { Result, Table } from '../result.ts'
import { Fleet } from './fleet.ts'
import { forge } from './lie/forge.ts'
import { Star, type Station, type Stub } from './network.ts'
import { mebibytes, type Settings } from './settings.ts'

const PEERS = 4
/** The most bytes of one chunk. */
const CHUNK = 256 * 1024
/** Chunks that may be wasted. */
const BUDGET = 2
const LYING = { NODE_OPTIONS: `--import=${new URL('lie/hooks.ts', import.meta.url).href}` }
const SHORT = { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '10' }

/** One of four peers flips a bit in every chunk that it sends. */
export async function benchLiar(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(256, settings)
  const file = join(dir, 'liar.raw')
  plantDisk(file, size)
  await using star = await Star.build(PEERS + 1, settings)
  await using fleet = await Fleet.create(dir)
  const { providers, receiver } = await gather(fleet, star.stations, { lastIs: LYING })
  const [narHash = ''] = await Promise.all(providers.map(async host => (await host.client.import({ path: file })).narHash))
  const liar = providers.at(-1)
  const before = await receiver.stub.link.traffic()
  const started = performance.now()
  const image = await receiver.host.client.fetch({ ref: narHash })
  const took = (performance.now() - started) / 1000
  const received = (await receiver.stub.link.traffic()).received - before.received
  const known = (await receiver.host.client.peers()).find(({ peerId }) => peerId === liar?.peerId)
  const { journal } = await receiver.host.client.show(narHash)
  const wasted = known?.bytesReceived ?? NaN
  return {
    name: `Liar: one of ${PEERS} peers flips a bit in every chunk of an image of ${size / 2 ** 20} MiB`,
    figures: { 'the fetch': { value: took, unit: 's' }, 'size / link': { value: size * 8 / (settings.mbit * 1e6), unit: 's' } },
    ratios: [
      ...(wasted > 0 ? [{ against: `${BUDGET} chunks of ${CHUNK / 1024} KiB, bytes taken from the liar`, ratio: wasted / (BUDGET * CHUNK), budget: 1 }] : []),
      { against: 'the size, bytes on the wire', ratio: received / size },
    ],
    notes: [
      `the image ends ${image.state}; the liar is ${known?.banned === true ? 'banned' : 'not banned'}, and sent ${(wasted / 1024).toFixed(0)} KiB`,
      ...(wasted > 0 ? [] : ['the liar was never asked, so this run says nothing about it']),
      ...evidenceIn(journal),
    ],
  }
}

/** All peers agree on a manifest, and on bytes that fit it, but not on those of the hash that is asked for. */
export async function benchForgery(settings: Settings, dir: string): Promise<Result> {
  const size = mebibytes(64, settings)
  const [wanted, given] = [join(dir, 'wanted.raw'), join(dir, 'given.raw')]
  plantDisk(wanted, size)
  plantDisk(given, size)
  await using star = await Star.build(PEERS + 2, settings)
  await using fleet = await Fleet.create(dir)
  const [honest, ...stations] = star.stations
  if (honest === undefined) throw new Error('Cannot measure without a station')
  const claimed = await hashOf(fleet, honest, wanted)
  for (const station of stations.slice(0, PEERS)) {
    const is = await hashOf(fleet, station, given)
    forge(fleet.dataDirOf(station), { is, claimed })
  }
  const { receiver } = await gather(fleet, stations, {})
  const outcome = await receiver.host.client.fetch({ ref: claimed.toSri() }).then(({ state }) => state, (error: unknown) => String(error))
  const shown = await receiver.host.client.show(claimed.toSri())
  return {
    name: `Forgery: all of ${PEERS} peers agree on the manifest of another image`,
    figures: {},
    table: hashesIn(shown),
    ratios: [{ against: 'one rejection', ratio: shown.state === 'rejected' ? 1 : 0 }],
    notes: [`the image is ${shown.state}, its path ${shown.path ?? 'not shown'}; the fetch ends: ${outcome}`, ...evidenceIn(shown.journal)],
  }
}

/** Providers at all stations but the last, which receives; all connected. */
async function gather(fleet: Fleet, stations: readonly Stub[], { lastIs = {} }: { lastIs?: Record<string, string> }): Promise<{ providers: Host[], receiver: { host: Host, stub: Stub } }> {
  const hosts: Host[] = []
  for (const [number, station] of stations.entries()) {
    const env = number === stations.length - 2 ? { ...SHORT, ...lastIs } : SHORT
    hosts.push(await fleet.join(station, { env, bootstrap: hosts.slice(0, 1) }))
  }
  await Promise.all(hosts.map(host => host.untilPeers(stations.length - 1)))
  const [host, stub] = [hosts.at(-1), stations.at(-1)]
  if (host === undefined || stub === undefined) throw new Error('Cannot measure without a receiver')
  return { providers: hosts.slice(0, -1), receiver: { host, stub } }
}

/** Has a host of its own import a file, and leaves what it then has. */
async function hashOf(fleet: Fleet, station: Station, path: string): Promise<NarHash> {
  const host = await fleet.join(station)
  const { narHash } = await host.client.import({ path })
  await host.kill('SIGTERM')
  return NarHash.parse(narHash)
}

/** What the journal says of each peer, once. */
function evidenceIn(journal: ImageDetailsJson['journal']): string[] {
  const peers = journal.flatMap(({ event, evidence }) => (evidence?.peers ?? []).map(peer => ({ event, ...peer })))
  const lines = peers.filter(({ bytes, wasted = 0, outcome }) => bytes + wasted > 0 || outcome !== 'lied')
    .map(({ event, peerId, bytes, wasted = 0, outcome, detail }) => `evidence: ${event}: ${peerId} ${outcome}, ${bytes} bytes${wasted === 0 ? '' : ` and ${wasted} in vain`}${detail === null ? '' : `, ${detail}`}`)
  return [...new Set(lines)]
}

function hashesIn({ journal }: ImageDetailsJson): Table {
  const stages = journal.flatMap(({ to, evidence }) => to === 'rejected' ? evidence?.verdict?.stages ?? [] : [])
  const rows = stages.filter(({ verdict }) => verdict === 'fail').map(({ stage, verdict, expected = '', found = '' }) => [stage, verdict, expected, found])
  return { columns: ['stage', 'verdict', 'expected', 'found'], rows: [...new Map(rows.map(row => [row.join(), row])).values()] }
}
