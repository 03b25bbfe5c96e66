import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { printedBy } from '../printed.ts'
import { usageOf } from '../usage.ts'
import { type Crowd, type CrowdSystem, together } from './crowd.ts'
import type { Station } from './network.ts'

/** Debian's own, for which its packages are. */
const PYTHON = '/usr/bin/python3'
const CLIENT = new URL('torrent.py', import.meta.url).pathname
const PORT = 6881
/** A size between those that spread fast and those that cost little. */
const PIECE_BYTES = 256 * 1024

/** BitTorrent over libtorrent, without a tracker: each is told of all the others. */
export function torrent({ superSeeding }: { superSeeding: boolean }): CrowdSystem {
  return {
    name: `libtorrent, super seeding ${superSeeding ? 'on' : 'off'}`,
    prepare: async ([seed, ...others], file, parent) => {
      if (seed === undefined) throw new Error('Cannot seed without a station')
      const dir = await mkdtemp(join(parent, 'torrent-'))
      const metainfo = join(dir, 'image.torrent')
      const peers = [seed, ...others].flatMap(({ addresses }) => addresses)
      await execa(PYTHON, [CLIENT, JSON.stringify({ make: true, file, directory: dirname(file), torrent: metainfo, pieceBytes: PIECE_BYTES })])
      const common = { make: false, torrent: metainfo, port: PORT }
      const seeder = await Client.start(seed, { ...common, seed: true, superSeeding, directory: dirname(file), peers: [] })
      const fetchers = await Promise.all(others.map(async station => {
        const directory = join(dir, station.addresses.join('+'))
        await mkdir(directory)
        return Client.start(station, { ...common, seed: false, directory, peers: peers.filter(address => !station.addresses.includes(address)) })
      }))
      return crowdOf(seeder, fetchers)
    },
  }
}

function crowdOf(seeder: Client, fetchers: readonly Client[]): Crowd {
  const all = [seeder, ...fetchers]
  return {
    fetches: fetchers.map(client => () => client.fetch()),
    usage: async () => together(await Promise.all(all.map(({ pid }) => usageOf(pid)))),
    [Symbol.asyncDispose]: async () => { await Promise.all(all.map(client => client.stop())) },
  }
}

/** A process with one BitTorrent client. */
class Client {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string, undefined>

  private constructor(process: ChildProcess) {
    this.#process = process
    this.#lines = printedBy(process)
  }

  static async start(station: Station, orders: object): Promise<Client> {
    const [address] = station.addresses
    const client = new Client(station.namespace.spawn(PYTHON, [CLIENT, JSON.stringify({ ...orders, address })], { stdio: ['pipe', 'pipe', 'inherit'] }))
    await client.#expect('ready')
    return client
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  async fetch(): Promise<void> {
    this.#process.stdin?.write('begin\n')
    await this.#expect('done')
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return
    const ended = once(this.#process, 'exit')
    this.#process.stdin?.end()
    await ended
  }

  async #expect(word: string): Promise<void> {
    const line = await this.#lines.next()
    const found = line.done === true ? 'its end' : line.value
    if (found !== word) throw new Error(`Cannot go on with libtorrent: found ${found}, needed ${word}`)
  }
}
