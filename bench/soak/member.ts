import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ControlClient } from '../../src/control/client.ts'
import type { Host, HostOptions } from '../host.ts'
import type { Fleet } from '../swarm/fleet.ts'
import type { Stub } from '../swarm/network.ts'
import { addTo, type Books, booksOf, lastBooks } from './books.ts'

/** What a daemon holds at one moment. */
export interface Sample {
  /** MiB. */
  readonly resident: number
  readonly heap: number
  readonly files: number
  readonly handles: number
}

/** One host of the fleet, through all the daemons that run on it one after the other. */
export class Member {
  readonly number: number
  readonly samples: Sample[] = []
  restarts = 0
  kills = 0
  cuts = 0
  readonly #fleet: Fleet
  readonly #stub: Stub
  readonly #options: HostOptions
  #host: Host
  /** Of the daemons that are no more. */
  readonly #closed: Books = new Map()

  private constructor(number: number, fleet: Fleet, stub: Stub, options: HostOptions, host: Host) {
    this.number = number
    this.#fleet = fleet
    this.#stub = stub
    this.#options = options
    this.#host = host
  }

  static async start(number: number, fleet: Fleet, stub: Stub, options: HostOptions): Promise<Member> {
    return new Member(number, fleet, stub, options, await fleet.join(stub, options))
  }

  get client(): ControlClient {
    return this.#host.client
  }

  get host(): Host {
    return this.#host
  }

  /** Stops the daemon as systemd does, whatever it is doing, and starts it again. */
  async restart(): Promise<void> {
    this.restarts += 1
    await this.#host.kill('SIGTERM')
    addTo(this.#closed, await lastBooks(`${this.#host.dir}.log`))
    this.#host = await this.#fleet.join(this.#stub, this.#options)
  }

  /** Kills the daemon, which must be at rest, as nobody hears what it has counted last; and starts it again. */
  async killAtRest(): Promise<void> {
    this.kills += 1
    addTo(this.#closed, booksOf(await this.client.metrics()))
    await this.#host.kill('SIGKILL')
    this.#host = await this.#fleet.join(this.#stub, this.#options)
  }

  async unplug(): Promise<void> {
    this.cuts += 1
    await this.#stub.namespace.run('ip', 'link', 'set', 'eth0', 'down')
  }

  async plug(): Promise<void> {
    await this.#stub.namespace.run('ip', 'link', 'set', 'eth0', 'up')
  }

  /** All that was ever counted here. */
  async books(): Promise<Books> {
    const books: Books = new Map()
    addTo(books, this.#closed)
    addTo(books, booksOf(await this.client.metrics()))
    return books
  }

  async sample(): Promise<void> {
    const metrics = await this.client.metrics()
    const value = (line: string): number => Number(new RegExp(`^${line} (\\S+)$`, 'm').exec(metrics)?.[1])
    const memory = (kind: string): number => value(`narvik_memory_bytes\\{kind="${kind}"\\}`) / 2 ** 20
    this.samples.push({ resident: memory('resident'), heap: memory('heap') + memory('external'), files: value('narvik_open_files'), handles: value('narvik_handles') })
  }

  /** Names of what is in a directory of its data. */
  entries(directory: 'images' | 'quarantine'): Promise<string[]> {
    return readdir(join(this.#host.dataDir, directory))
  }

  async loggedErrors(): Promise<string[]> {
    const log = await readFile(`${this.#host.dir}.log`, 'utf8')
    return log.split('\n').filter(line => line.startsWith('{"level":"error"'))
  }
}
