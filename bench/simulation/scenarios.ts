import { type ChurnInit, crowd, cutOff, LINK, someChunks, withChurn } from './crowd.ts'
import { ESTIMATED } from './nature.ts'
import { Simulation } from './simulation.ts'

/** What happens to a crowd. */
export type Event = 'none' | 'churn' | 'cut'

export interface Scenario {
  readonly hosts: number
  readonly event: Event
  /** The image's size. */
  readonly mebibytes: number
}

/** What a run has found. Times are in seconds since the first host began; bytes of chunks and manifests, as parts of the image's size. */
export interface Row extends Scenario {
  /** The first, the middle and the last host to have the image. */
  readonly first: number
  readonly median: number
  readonly last: number
  /** What the seed sent, and of that the manifests. */
  readonly seedSent: number
  readonly manifests: number
  /** What came that nobody needed, for each host. */
  readonly wasted: number
  /** Sessions that were opened, for each host, and the part of those asked for that was refused. */
  readonly sessions: number
  readonly refused: number
  readonly trace: string
}

const MIB = 2 ** 20
export const SEED = 1
/** Milliseconds from a host to the middle of the network, at most. */
export const WAY_MS = 10
/** Milliseconds of one step of virtual time. */
export const STEP_MS = 10
export const CHURN: ChurnInit = { withinMs: 10_000, rest: 0.2, leave: 0.1, late: 0.1, offMs: 10_000, seed: SEED }
/** Milliseconds from and until which every so-manieth host is cut off. */
export const CUT = { every: 4, from: 5_000, until: 15_000 }
/** The sizes of images: a small one with any number of hosts, a large one with some. */
export const SMALL = 64
export const LARGE = 256
export const SCENARIOS: readonly Scenario[] = [
  ...[8, 16, 32, 64, 125, 250, 500, 1000].map((hosts): Scenario => ({ hosts, event: 'none', mebibytes: SMALL })),
  ...(['churn', 'cut'] as const).flatMap(event => [64, 250].map((hosts): Scenario => ({ hosts, event, mebibytes: SMALL }))),
  ...[8, 16, 32, 64, 125].map((hosts): Scenario => ({ hosts, event: 'none', mebibytes: LARGE })),
]

/** Seconds that an image takes through one link that carries nothing else. */
export function throughOneLink({ mebibytes }: Pick<Scenario, 'mebibytes'>): number {
  return mebibytes * MIB / LINK.down / 1000
}

export function simulate({ hosts: count, event, mebibytes }: Scenario): Row {
  const bytes = mebibytes * MIB
  const simulation = simulationOf(count, event, bytes)
  const last = simulation.run()
  const done = simulation.wanting.map(({ doneAt = last }) => doneAt).sort((a, b) => a - b)
  const seed = simulation.host('seed')
  const { asked, refused } = simulation.tally
  const seconds = (milliseconds = 0): number => round(milliseconds / 1000, 2)
  return {
    hosts: count, event, mebibytes, first: seconds(done[0]), median: seconds(done[done.length >> 1]), last: seconds(last),
    seedSent: round((seed.sent + seed.manifests) / bytes, 3), manifests: round(seed.manifests / bytes, 3),
    wasted: round([...simulation.hosts.values()].reduce((sum, { wasted }) => sum + wasted, 0) / bytes / count, 4),
    sessions: round((asked - refused) / count, 1), refused: round(refused / asked, 3), trace: simulation.traceHash,
  }
}

function simulationOf(count: number, event: Event, bytes: number): Simulation {
  const hosts = crowd({ count, wayMs: WAY_MS, seed: SEED })
  return new Simulation({
    chunks: someChunks(bytes, SEED), seed: SEED, nature: { ...ESTIMATED, stepMs: STEP_MS },
    hosts: event === 'churn' ? withChurn(hosts, CHURN) : hosts,
    cuts: event === 'cut' ? [cutOff(CUT.every, CUT.from, CUT.until)] : [],
  })
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
