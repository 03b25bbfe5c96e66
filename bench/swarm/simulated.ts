import { crowd, someChunks } from '../simulation/crowd.ts'
import { ESTIMATED } from '../simulation/nature.ts'
import { Simulation } from '../simulation/simulation.ts'
import { QUEUE_MS } from './network.ts'
import type { Settings } from './settings.ts'

export interface SimulatedCrowd {
  /** Seconds after the first start, of the first and the last host. */
  readonly first: number
  readonly last: number
  /** Bytes on the wire. */
  readonly seedSent: number
}

/** What the simulation says of the crowd that is measured: the same links, no way but their queues, everybody connected. */
export function simulateCrowd({ hosts, mbit, random }: Settings, size: number): SimulatedCrowd {
  const speed = mbit * 1e6 / 8 / 1000
  const simulation = new Simulation({
    chunks: someChunks(size), seed: random, hosts: crowd({ count: hosts, link: { up: speed, down: speed } }), nature: { connectTrips: 0, queueMs: QUEUE_MS },
  })
  const last = simulation.run()
  const { sent, manifests } = simulation.host('seed')
  return { first: Math.min(...simulation.wanting.map(({ doneAt = last }) => doneAt)) / 1000, last: last / 1000, seedSent: (sent + manifests) / ESTIMATED.goodput }
}
