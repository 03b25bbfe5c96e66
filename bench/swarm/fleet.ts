import { randomFillSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { dataDirIn, Host, type HostOptions } from '../host.ts'
import type { Station } from './network.ts'

const PORT = 4650

/** Hosts with one fleet key, each in its station; the others find each other through the first. */
export class Fleet implements AsyncDisposable {
  readonly #dir: string
  readonly #hosts = new Map<Station, Host>()

  private constructor(dir: string) {
    this.#dir = dir
  }

  /** A fleet without hosts, that keeps everything in a directory of its own below this one. */
  static async create(parent: string): Promise<Fleet> {
    const dir = await mkdtemp(join(parent, 'fleet-'))
    writeFileSync(join(dir, 'fleet.key'), randomFillSync(Buffer.alloc(32)), { mode: 0o600 })
    return new Fleet(dir)
  }

  /** Starts a host at each station, all bootstrapped from the first, and resolves when each is connected to each. */
  static async start(parent: string, stations: readonly Station[], options: HostOptions = {}): Promise<Fleet> {
    const fleet = await Fleet.create(parent)
    const [first, ...rest] = stations
    if (first === undefined) throw new Error('Cannot start a fleet without a station')
    const seed = await fleet.join(first, options)
    await Promise.all(rest.map(station => fleet.join(station, { ...options, bootstrap: [seed] })))
    await Promise.all(fleet.hosts.map(host => host.untilPeers(rest.length)))
    return fleet
  }

  get hosts(): Host[] {
    return [...this.#hosts.values()]
  }

  /** The host that was started first. */
  get seed(): Host {
    const [seed] = this.hosts
    if (seed === undefined) throw new Error('Cannot name a seed: the fleet has no hosts')
    return seed
  }

  get others(): Host[] {
    return this.hosts.slice(1)
  }

  /** Starts the host of a station, with whatever an earlier daemon of it has left. */
  async join(station: Station, options: HostOptions = {}): Promise<Host> {
    const dir = this.#dirOf(station)
    const host = await Host.start({
      ...options,
      dir,
      via: station.namespace.via,
      logFile: `${dir}.log`,
      args: ['--fleet-key', join(this.#dir, 'fleet.key'), ...station.addresses.flatMap(address => ['--listen', `/ip4/${address}/tcp/${PORT}`])],
    })
    this.#hosts.set(station, host)
    return host
  }

  dataDirOf(station: Station): string {
    return dataDirIn(this.#dirOf(station))
  }

  #dirOf({ addresses }: Station): string {
    return join(this.#dir, addresses.join('+'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.#hosts.values(), host => host.stop()))
  }
}
