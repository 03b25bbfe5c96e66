import { chmod, open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { ImageDetailsJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { crashEverywhere } from '../helpers/crashes.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { makePublisher } from '../helpers/names.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const PATIENCE = { timeout: 1_200_000 }
const MIB = 1024 * 1024

it('a fetch that is killed at any step goes on by itself', PATIENCE, async () => {
  const { giver, narHash } = await giverOf(2 * MIB)
  const steps = await crashEverywhere({
    options: { bootstrap: [giver] },
    before: host => removeAll(host),
    verb: host => host.client.fetch({ ref: narHash, name: 'it' }),
    after: async host => { expect(await host.client.show('it')).toMatchObject({ narHash, state: 'verified' }) },
  })
  expect(steps).toEqual(expect.arrayContaining(['write quarantine/<image>/tree', 'write quarantine/<image>/arrivals', 'commit complete, images', 'rename quarantine/<image>/tree', 'commit pass, images', 'rename by-name/.tmp-*']))
})

it('and at a checkpoint, from what it had', PATIENCE, async () => {
  // More than what lies between two checkpoints, and slow enough for one to be done before the end.
  const { giver, narHash } = await giverOf(96 * MIB)
  let resumed = 0
  const steps = await crashEverywhere({
    options: { bootstrap: [giver], env: { NARVIK_RATES_DOWNLOAD: '40 MiB' } },
    only: /^rename .*(progress|arrivals)/,
    before: host => removeAll(host),
    verb: host => host.client.fetch({ ref: narHash }),
    afterKill: async host => {
      await until(async () => (await host.client.show(narHash)).state === 'verified', 'the fetch to go on by itself')
      const [first, ...later] = startsOf(await host.client.show(narHash))
      expect(first).toBe(0)
      for (const start of later) expect(start).toBeGreaterThan(32 * MIB)
      resumed += later.length
    },
    after: async host => { expect((await host.client.show(narHash)).state).toBe('verified') },
  })
  expect(steps).toEqual(expect.arrayContaining(['rename quarantine/<image>/progress.json.tmp', 'rename quarantine/<image>/arrivals.new']))
  expect(resumed).toBeGreaterThan(0)
})

it('a repair that is killed at any step leaves nothing in sight that it has not judged', PATIENCE, async () => {
  const { giver, narHash } = await giverOf(2 * MIB)
  const damaged = new Set<string>()
  const steps = await crashEverywhere({
    options: { bootstrap: [giver] },
    before: async host => {
      await host.client.fetch({ ref: narHash, name: 'it' })
      const { path } = await host.client.show('it')
      damaged.add(NarHash.parse(narHash).toNix32())
      await flip(path ?? '', MIB + 17)
    },
    verb: async host => {
      const { results } = await host.client.verify({ ref: narHash, repair: true })
      damaged.clear()
      return results
    },
    unknownDamage: damaged,
    after: async host => { expect(await host.client.show('it')).toMatchObject({ narHash, state: 'verified' }) },
  })
  expect(steps).toEqual(expect.arrayContaining(['commit damage, images']))
})

it('a name that is being published is the old one or the new one, and never gets older', PATIENCE, async () => {
  const dir = await temporaryDirectory()
  await makeRawDisk(join(dir, 'one'), MIB)
  const publisher = makePublisher()
  let narHash = ''
  let [old, latest] = [0, 0]
  const steps = await crashEverywhere({
    options: { env: { NARVIK_TRUST_KEYS: publisher.publicKey } },
    prepare: async host => { narHash = (await host.client.import({ path: join(dir, 'one') })).narHash },
    before: async host => { old = (await host.client.names())[0]?.seq ?? 0 },
    verb: host => {
      latest = Math.max(Date.now(), latest + 1)
      return host.client.publish({ record: Buffer.from(publisher.sign('web', NarHash.parse(narHash), { seq: latest })).toString('base64') })
    },
    afterKill: async host => { expect([old, latest]).toContain((await host.client.names())[0]?.seq ?? 0) },
    after: async host => { expect(await host.client.names()).toMatchObject([{ name: 'web', own: true, narHash, seq: latest }]) },
  })
  expect(steps).toEqual(expect.arrayContaining([expect.stringContaining('published_names')]))
})

async function giverOf(size: number): Promise<{ giver: TestDaemon, narHash: string }> {
  const giver = await TestDaemon.start()
  const path = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(path, size)
  return { giver, narHash: (await giver.client.import({ path })).narHash }
}

/** The bytes that were here each time that it was taken up, in order. */
function startsOf({ journal }: ImageDetailsJson): number[] {
  return journal.slice(journal.findLastIndex(({ event }) => event === 'create')).flatMap(({ event, reason }) => event === 'start' ? [Number(/from byte (\d+) on/.exec(reason)?.[1])] : [])
}

async function removeAll(host: TestDaemon): Promise<void> {
  for (const image of await host.client.list()) await host.client.remove(image.narHash)
}

async function flip(file: string, position: number): Promise<void> {
  await chmod(file, 0o644)
  const handle = await open(file, 'r+')
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, position)
  await handle.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, position)
  await handle.close()
  await chmod(file, 0o444)
}
