import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { ImageJson, PublishedNameJson } from '../../src/control/api.ts'
import { formatSecretKey } from '../../src/nix/signature.ts'
import { runCli, temporaryDirectory, TestDaemon, until, type CommandResult } from '../helpers/fleet.ts'
import { makePublisher } from '../helpers/names.ts'

const HOOK = fileURLToPath(new URL('../fixtures/other-clock.ts', import.meta.url))
const HOUR = 3600 * 1000

/** A fleet whose clocks all show the same other time, and somebody who publishes in it. */
class Times {
  readonly dir: string
  readonly #env: Record<string, string>

  private constructor(dir: string, env: Record<string, string>) {
    this.dir = dir
    this.#env = env
  }

  static async begin(): Promise<Times> {
    const dir = await temporaryDirectory()
    const { key, publicKey } = makePublisher()
    await writeFile(join(dir, 'secret.key'), `${formatSecretKey(key)}\n`, { mode: 0o600 })
    await writeFile(join(dir, 'clock'), '0')
    return new Times(dir, { NARVIK_TRUST_KEYS: publicKey, NODE_OPTIONS: `--import ${HOOK}`, OTHER_CLOCK: join(dir, 'clock'), OTHER_CLOCK_INTERVALS: '1' })
  }

  /** A host that knows the others through `by`, where that is said. */
  async host(...by: TestDaemon[]): Promise<TestDaemon> {
    const host = await TestDaemon.start({ env: this.#env, bootstrap: by })
    await host.untilPeers(by.length)
    return host
  }

  /** It is so many hours later for everybody. */
  async later(hours: number): Promise<void> {
    await writeFile(join(this.dir, 'clock'), String(hours * HOUR))
  }

  async importOn(host: TestDaemon, name: string): Promise<ImageJson> {
    await writeFile(join(this.dir, name), name)
    return host.client.import({ path: join(this.dir, name) })
  }

  /** Publishes as a person does, whose clock is that of the hosts. */
  async publish(host: TestDaemon, { narHash }: ImageJson, days: number): Promise<PublishedNameJson> {
    const args = ['publish', narHash, '--name', 'web', '--key', join(this.dir, 'secret.key'), '--valid', String(days), '--json', '--socket', host.socket]
    return JSON.parse((await runCli(args, { env: this.#env })).stdout) as PublishedNameJson
  }
}

function fetchWeb(host: TestDaemon): Promise<CommandResult> {
  return host.run('fetch', 'web', '--timeout', '30')
}

/** How often a host has told the others of what it has published. */
function told({ log }: TestDaemon): number {
  return log.split('told the fleet of a published name').length - 1
}

describe('a published name in the course of time', () => {
  it('goes on when it is published again before it expires, and is refused by everybody, with the reason, when it is not', async () => {
    const times = await Times.begin()
    const publisher = await times.host()
    const reader = await times.host(publisher)
    const image = await times.importOn(publisher, 'image')
    const first = await times.publish(publisher, image, 1)
    expect(await fetchWeb(reader)).toMatchObject({ exitCode: 0 })

    await times.later(20)
    const second = await times.publish(publisher, image, 1)
    expect(Date.parse(second.expiresAt) - Date.parse(first.expiresAt)).toBeGreaterThan(19 * HOUR)
    expect(await fetchWeb(reader)).toMatchObject({ exitCode: 0 })
    expect(await reader.client.names()).toMatchObject([{ name: 'web', seq: second.seq, expiresAt: second.expiresAt, own: false }])

    // The first record would have expired by now.
    await times.later(30)
    const newcomer = await times.host(publisher)
    expect(await fetchWeb(newcomer)).toMatchObject({ exitCode: 0 })

    const before = told(publisher)
    await times.later(43.5)
    await until(() => Promise.resolve(told(publisher) > before), 'the name to be told of half an hour before it expires')
    const stale = new RegExp(`Cannot take the name web: found that what ${second.publisher.replaceAll(/[+]/g, '\\+')} published expired on ${second.expiresAt}`)
    await publisher.stop()
    await times.later(44.1)
    // Also a host that comes now, and had never heard of it.
    for (const host of [reader, newcomer, await times.host(reader)]) {
      expect(await fetchWeb(host)).toMatchObject({ exitCode: 6, stderr: expect.stringMatching(stale) as string })
    }
    expect((await reader.client.list()).map(({ narHash, state }) => ({ narHash, state }))).toEqual([{ narHash: image.narHash, state: 'verified' }])
  })

  it('is told of again and again by the host that has published it, so that others have it when that host has gone', async () => {
    const times = await Times.begin()
    const publisher = await times.host()
    const reader = await times.host(publisher)
    await times.publish(publisher, await times.importOn(publisher, 'image'), 3)
    expect(await fetchWeb(reader)).toMatchObject({ exitCode: 0 })

    const before = told(publisher)
    // Longer than the fleet keeps a record of which it hears nothing.
    await times.later(2)
    await until(() => Promise.resolve(told(publisher) > before), 'the name to be told of again')
    await publisher.stop()
    expect(await fetchWeb(await times.host(reader))).toMatchObject({ exitCode: 0 })
  })
})
