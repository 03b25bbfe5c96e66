import { type ChunkList, ChunkListBuilder } from '../../src/image/chunk-list.ts'
import { seededRandom } from '../../src/tasks/swarm/random.ts'
import type { HostInit, LinkSpeed } from './host.ts'
import type { Cut } from './simulation.ts'

/** Bytes per millisecond each way: 50 Mbit/s. */
export const LINK: LinkSpeed = { up: 6250, down: 6250 }
const MIN_CHUNK_BYTES = 16 * 1024
const STARTS_WITHIN_MS = 1000

export interface CrowdInit {
  /** Hosts that want what the seed has. */
  readonly count: number
  readonly link?: LinkSpeed
  /** The most milliseconds from a host to the middle of the network. */
  readonly wayMs?: number
  readonly seed?: number
}

/** A seed and hosts that all want what it has, within a second. */
export function crowd({ count, link = LINK, wayMs = 0, seed = 1 }: CrowdInit): HostInit[] {
  const random = seededRandom(seed)
  const way = (): number => wayMs * (0.1 + 0.9 * random())
  const hosts = Array.from({ length: count }, (_, index): HostInit => ({ name: `host ${index}`, link, wayMs: way(), startsAt: index * STARTS_WITHIN_MS / count }))
  return [{ name: 'seed', link, isSeed: true, wayMs: way() }, ...hosts]
}

export interface ChurnInit {
  /** Milliseconds within which hosts come and go. */
  readonly withinMs: number
  /** Parts of the hosts that are switched off for a while; that are so for ever; and that come later than the others. */
  readonly rest: number
  readonly leave: number
  readonly late: number
  /** Milliseconds that those are off that come back, at most. */
  readonly offMs: number
  readonly seed: number
}

/** The hosts, some of which come and go. */
export function withChurn(hosts: readonly HostInit[], { withinMs, rest, leave, late, offMs, seed }: ChurnInit): HostInit[] {
  const random = seededRandom(seed)
  return hosts.map(host => {
    const [lot, at, off] = [random(), random() * withinMs, random() * offMs]
    if (host.isSeed === true) return host
    if (lot < rest) return { ...host, absences: [{ from: (host.startsAt ?? 0) + at, until: (host.startsAt ?? 0) + at + off }] }
    if (lot < rest + leave) return { ...host, absences: [{ from: (host.startsAt ?? 0) + at, until: Infinity }] }
    return lot < rest + leave + late ? { ...host, startsAt: at } : host
  })
}

/** Cuts off every so-manieth host from the others and from the seed, for a while. */
export function cutOff(every: number, from: number, until: number): Cut {
  return { from, until, isBeyond: name => name !== 'seed' && Number(name.slice('host '.length)) % every === 0 }
}

/** The chunks of a made-up image, of lengths as FastCDC gives them for random bytes. */
export function someChunks(bytes: number, seed = 1): ChunkList {
  const random = seededRandom(seed)
  const builder = new ChunkListBuilder()
  for (let left = bytes; left > 0;) {
    const length = Math.min(left, MIN_CHUNK_BYTES + Math.floor(8 * MIN_CHUNK_BYTES * random()))
    builder.add(length, HASH)
    left -= length
  }
  return builder.build()
}

/** Nobody looks at it. */
const HASH = new Uint8Array(32)
