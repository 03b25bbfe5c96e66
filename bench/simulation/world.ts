import type { ChunkList } from '../../src/image/chunk-list.ts'
import type { Agenda } from './agenda.ts'
import type { Directory } from './directory.ts'
import type { SimHost } from './host.ts'
import type { Nature } from './nature.ts'
import type { Network } from './network.ts'

/** What all hosts of a simulation share. */
export interface World {
  readonly agenda: Agenda
  readonly network: Network
  readonly nature: Nature
  readonly chunks: ChunkList
  readonly directory: Directory
  readonly random: () => number
  readonly tally: Tally
  host(peerId: string): SimHost
  /** Whether nothing goes from one to the other at the moment. */
  isApart(one: SimHost, other: SimHost): boolean
  /** The host decides at the end of the step what to ask for. */
  wake(host: SimHost): void
  /** Notes what happened, for two runs to be compared. */
  trace(host: SimHost, peer: SimHost, what: number): void
}

/** What is counted over all hosts. */
export interface Tally {
  /** Sessions that were asked for, and those refused because there were enough. */
  asked: number
  refused: number
  /** Messages that are no chunks, and messages of chunks. */
  small: number
  chunks: number
}
