import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { makePublisher } from '../helpers/names.ts'

const HOOK = fileURLToPath(new URL('../fixtures/other-clock.ts', import.meta.url))
const DAY = 24 * 3600 * 1000
const UNKNOWN = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='

it.each([['ahead', 400 * DAY], ['behind', -400 * DAY]])('a host whose clock jumps, and was %s for a while, loses nothing and is believed again', async (_where, offset) => {
  const dir = await temporaryDirectory()
  const clock = join(dir, 'clock')
  const publisher = makePublisher()
  const env = { NARVIK_TRUST_KEYS: publisher.publicKey }
  const other = await TestDaemon.start({ env })
  const options = { env: { ...env, NODE_OPTIONS: `--import ${HOOK}`, OTHER_CLOCK: clock }, bootstrap: [other] }
  let host = await TestDaemon.start(options)
  await host.untilPeers(1)
  const importOn = async (name: string): Promise<ImageJson> => {
    await writeFile(join(dir, name), name)
    return host.client.import({ path: join(dir, name), name })
  }
  const before = await importOn('before')
  await host.client.publish({ record: Buffer.from(publisher.sign('web', NarHash.parse(before.narHash))).toString('base64') })

  // A deadline is a span: it neither ends nor stays out when the clock jumps.
  const started = performance.now()
  const waiting = host.run('fetch', UNKNOWN, '--timeout', '4')
  await until(async () => (await host.client.transfers()).length === 1, 'the fetch to begin')
  await writeFile(clock, String(offset))
  const during = await importOn('during')
  expect((await waiting).exitCode).toBe(7)
  expect(performance.now() - started).toBeGreaterThan(3500)
  await host.client.remove(UNKNOWN)

  // Verdicts don't depend on the clock, also not over a restart.
  await host.stop()
  host = await TestDaemon.start({ ...options, dir: host.dir })
  await host.untilPeers(1)
  expect((await host.client.verify({ all: true })).results.map(({ verdict }) => verdict)).toEqual(['pass', 'pass'])
  expect(Math.abs(new Date(during.createdAt).getTime() - Date.now() - offset)).toBeLessThan(DAY)

  await writeFile(clock, '0')
  const after = await importOn('after')
  for (const { narHash } of [after, during, before]) expect(await other.client.fetch({ ref: narHash })).toMatchObject({ state: 'verified' })
  expect(await host.client.names()).toMatchObject([{ name: 'web', narHash: before.narHash, own: true }])
  expect(await host.client.fetch({ ref: 'web' })).toMatchObject({ narHash: before.narHash })
})
