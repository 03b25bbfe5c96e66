import { readdir } from 'node:fs/promises'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { HostEvent } from '../control/api.ts'
import { reasonCode, STAGE_REASONS } from '../image/reasons.ts'
import { EVENTS, STATES } from '../image/states.ts'
import type { ProtocolTotals } from '../p2p/books.ts'
import type { TaskContext } from '../tasks/context.ts'
import type { Events } from '../tasks/events.ts'
import { Counter, expose, type Metric, type Sample } from './registry.ts'

type Observed = Pick<TaskContext, 'catalog' | 'content' | 'jobs'> & {
  readonly events: Pick<Events, 'follow'>
  readonly node: Pick<TaskContext['node'], 'peers' | 'routingPeers' | 'traffic'>
}

/** Milliseconds between two looks at the event loop. */
const LOOP_RESOLUTION_MS = 20
const NANOSECONDS = 1e9
/** Why a verdict can be a failure. */
const FAILURES = [...Object.values(STAGE_REASONS), reasonCode({ event: 'fail', evidence: null }) ?? 'none']

/**
 * What is counted on this host. No label holds a peer, an image or a name: the number of lines is bounded by the code,
 * however large the fleet is.
 */
export class Metrics {
  readonly #observed: Observed
  readonly #version: string
  readonly #loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS })
  readonly #transitions = new Counter(['create', ...EVENTS, 'remove'].map(event => ({ event })))
  readonly #outcomes = new Counter([{ verdict: 'pass', reason: 'none' }, ...FAILURES.map(reason => ({ verdict: 'fail', reason }))])
  readonly #work = new Counter()
  readonly #peers = new Counter(['connected', 'disconnected', 'banned'].map(event => ({ event })))
  readonly #lines = new Counter(['warn', 'error'].map(level => ({ level })))
  readonly #unfollow: () => void

  constructor(observed: Observed, { version }: { readonly version: string }) {
    this.#observed = observed
    this.#version = version
    this.#loop.enable()
    this.#unfollow = observed.events.follow(event => { this.#count(event) })
  }

  [Symbol.dispose](): void {
    this.#unfollow()
    this.#loop.disable()
  }

  /** The text that Prometheus reads. */
  text(): Promise<string> {
    return expose(this.list())
  }

  /** Every metric. */
  list(): readonly Metric[] {
    return [...this.#ofImages(), ...this.#ofNetwork(), ...this.#ofProcess()]
  }

  #ofImages(): Metric[] {
    const { catalog, content, jobs } = this.#observed
    return [
      gauge('narvik_images', 'Images in each state.', () => STATES.map(state => ({ labels: { state }, value: catalog.count(state) }))),
      gauge('narvik_quarantine_bytes', 'Bytes of the NARs of images that are in quarantine: being received, judged, or rejected.', () => plain(quarantined(catalog))),
      counter('narvik_transitions_total', 'Changes of state, by what happened.', this.#transitions),
      counter('narvik_verify_outcomes_total', 'Verdicts of the verify pipeline; the reason of a failure is a code of docs/REASONS.md.', this.#outcomes),
      counter('narvik_work_total', 'Pieces of work that ended, by kind and by the code of their error; `ok` where there was none.', this.#work),
      gauge('narvik_work_under_way', 'Pieces of work that are under way or wait for their turn, by kind.', () => countBy(jobs.list().map(({ kind }) => kind), 'kind')),
      gauge('narvik_disk_free_bytes', 'Bytes free where the data directory is.', async () => plain(await content.freeBytes())),
    ]
  }

  #ofNetwork(): Metric[] {
    const { node } = this.#observed
    const traffic = (pick: (totals: ProtocolTotals) => number) => () =>
      Array.from(node.traffic, ([protocol, totals]) => ({ labels: { kind: kindOf(protocol) }, value: pick(totals) }))
    return [
      counter('narvik_received_bytes_total', 'Bytes of bodies received from peers, by protocol.', traffic(({ received }) => received)),
      counter('narvik_sent_bytes_total', 'Bytes of bodies handed over to be sent to peers, by protocol.', traffic(({ sent }) => sent)),
      counter('narvik_received_broken_bytes_total', 'Of the received bytes, those of exchanges that did not end in order.', traffic(({ receivedBroken }) => receivedBroken)),
      counter('narvik_sent_broken_bytes_total', 'Of the sent bytes, those of exchanges that did not end in order: some of them are lost.', traffic(({ sentBroken }) => sentBroken)),
      gauge('narvik_peers', 'Peers that are connected, by who dialled, and peers that are banned.', () => peerCounts(node.peers())),
      counter('narvik_peer_changes_total', 'Peers that came, went or were banned.', this.#peers),
      gauge('narvik_dht_peers', 'Peers in the routing table of the DHT.', () => plain(node.routingPeers)),
    ]
  }

  #ofProcess(): Metric[] {
    const seconds = (value: number): readonly Sample[] => plain(value / NANOSECONDS)
    return [
      gauge('narvik_event_loop_delay_p99_seconds', 'The 99th percentile of how late the event loop was since the last scrape.', () => {
        const samples = seconds(this.#loop.percentile(99))
        this.#loop.reset()
        return samples
      }),
      gauge('narvik_memory_bytes', 'Memory of the process: resident, and what the JavaScript heap and buffers outside of it hold.', memory),
      gauge('narvik_open_files', 'Files, sockets and pipes that the process has open.', async () => plain((await readdir('/proc/self/fd')).length)),
      gauge('narvik_handles', 'Timers, sockets and requests that the event loop has to look after.', () => plain(process.getActiveResourcesInfo().length)),
      counter('narvik_log_lines_total', 'Warnings and errors that were logged.', this.#lines),
      gauge('narvik_start_time_seconds', 'When the daemon started, in seconds since 1970.', () => plain(Math.round(Date.now() / 1000 - process.uptime()))),
      counter('narvik_cpu_seconds_total', 'Processor time of all threads.', () => plain((process.cpuUsage().user + process.cpuUsage().system) / 1e6)),
      gauge('narvik_info', 'Always 1; its label has the version.', () => [{ labels: { version: this.#version }, value: 1 }]),
    ]
  }

  #count(event: HostEvent): void {
    switch (event.type) {
      case 'image':
        this.#transitions.add({ event: event.event })
        if (event.event === 'pass' || event.event === 'fail') this.#outcomes.add({ verdict: event.event, reason: event.code ?? 'none' })
        return
      case 'work':
        if (event.event !== 'started') this.#work.add({ kind: event.kind, result: event.code ?? 'ok' })
        return
      case 'peer':
        this.#peers.add({ event: event.event })
        return
      case 'log':
        this.#lines.add({ level: event.level })
        return
      case 'lost':
    }
  }
}

function gauge(name: string, help: string, collect: Metric['collect']): Metric {
  return { name, help, type: 'gauge', collect }
}

function counter(name: string, help: string, from: Counter | Metric['collect']): Metric {
  return { name, help, type: 'counter', collect: from instanceof Counter ? () => from.samples() : from }
}

function plain(value: number): readonly Sample[] {
  return [{ labels: {}, value }]
}

function countBy(values: readonly string[], label: string): readonly Sample[] {
  return Array.from(Map.groupBy(values, value => value), ([value, all]) => ({ labels: { [label]: value }, value: all.length }))
}

function quarantined(catalog: Observed['catalog']): number {
  return (['receiving', 'quarantined', 'rejected'] as const).flatMap(state => catalog.list({ state })).reduce((sum, { narSize }) => sum + (narSize ?? 0), 0)
}

function peerCounts(peers: ReturnType<Observed['node']['peers']>): readonly Sample[] {
  const count = (connection: string, those: (peer: (typeof peers)[number]) => boolean): Sample => ({ labels: { connection }, value: peers.filter(those).length })
  return [
    count('inbound', ({ direction }) => direction === 'inbound'),
    count('outbound', ({ direction }) => direction === 'outbound'),
    count('banned', ({ banned }) => banned),
  ]
}

/** `nar` of `/narvik/nar/1.0.0`. */
function kindOf(protocol: string): string {
  return protocol.split('/')[2] ?? protocol
}

function memory(): readonly Sample[] {
  const { rss, heapUsed, external } = process.memoryUsage()
  return Object.entries({ resident: rss, heap: heapUsed, external }).map(([kind, value]) => ({ labels: { kind }, value }))
}
