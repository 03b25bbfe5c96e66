import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { BanJson, ImageJson, PeerJson } from '../../src/control/api.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import { Catalog } from '../../src/store/catalog.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

async function isConnected(daemon: TestDaemon, peerId: string): Promise<boolean> {
  return (await daemon.client.peers()).some((peer: PeerJson) => peer.peerId === peerId && peer.direction !== null)
}

async function reload(daemon: TestDaemon, file: string, toml: string): Promise<void> {
  const done = (): number => daemon.log.split(/reloaded the configuration|was not reloaded/).length
  const before = done()
  await writeFile(file, toml)
  process.kill(daemon.pid, 'SIGHUP')
  await until(() => Promise.resolve(done() > before), 'the end of the reload')
}

describe('a reload', () => {
  it('puts the lists of peers and the keys of the fleet into force, and says what needs a restart', async () => {
    const dir = await temporaryDirectory()
    const [oldKey, nextKey, file] = [join(dir, 'old.key'), join(dir, 'next.key'), join(dir, 'narvik.toml')]
    await createFleetKey(oldKey)
    await createFleetKey(nextKey)
    const old = `fleet_key_file = "${oldKey}"\n`
    await writeFile(file, old)
    const host = await TestDaemon.start({ env: { NARVIK_CONFIG: file } })
    const peer = await TestDaemon.start({ env: { NARVIK_FLEET_KEY_FILE: oldKey }, bootstrap: [host] })
    await host.untilPeers(1)

    await reload(host, file, `${old}[peers]\ndeny = ["${peer.peerId}"]\n`)
    expect(await isConnected(host, peer.peerId)).toBe(false)
    await reload(host, file, `${old}[peers]\nallow = ["${peer.peerId}"]\n`)
    await until(() => isConnected(host, peer.peerId), 'the peer that is allowed again')
    await reload(host, file, `${old}[peers]\nallow = ["${host.peerId}"]\n`)
    expect(await isConnected(host, peer.peerId)).toBe(false)

    // A mistake changes nothing, and what is not for a reload is said.
    await reload(host, file, `${old}[peers]\nallow = "everybody"\n`)
    expect(host.log).toMatch(/was not reloaded.*peers\.allow/)
    expect(await isConnected(host, peer.peerId)).toBe(false)
    await reload(host, file, `${old}mdns = true\nallow_open = true\n`)
    expect(host.log).toMatch(/need a restart keys=\[ 'allow_open' \]/)
    await until(() => isConnected(host, peer.peerId), 'the peer that nobody keeps away')

    await reload(host, file, `fleet_key_file = "${nextKey}"\naccept_fleet_key_files = ["${oldKey}"]\n`)
    expect(await isConnected(host, peer.peerId)).toBe(true)
    await reload(host, file, `fleet_key_file = "${nextKey}"\n`)
    expect(await isConnected(host, peer.peerId)).toBe(false)
    await reload(host, file, `fleet_key_file = "${nextKey}"\naccept_fleet_key_files = ["${oldKey}"]\n`)
    await until(() => isConnected(host, peer.peerId), 'the peer whose key is accepted again')
  })
})

describe('a ban', () => {
  it('outlives a restart, keeps the peer away, is listed, and can be lifted', async () => {
    const liar = await TestDaemon.start()
    const source = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(source, 1024 * 1024)
    const image = await liar.json<ImageJson>('import', source)
    const host = await TestDaemon.start({ bootstrap: [liar] })
    await host.untilPeers(1)
    await host.stop()
    const catalog = Catalog.open(join(host.dataDir, 'catalog.db'))
    const now = Date.now()
    catalog.bans.put({ peerId: liar.peerId, reason: 'it lied', since: now, until: now + 3_600_000, times: 2 })
    catalog.close()

    const again = await TestDaemon.start({ dir: host.dir, bootstrap: [liar], env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
    expect(await again.json<BanJson[]>('peers', '--banned')).toEqual([
      { peerId: liar.peerId, reason: 'it lied', since: new Date(now).toISOString(), until: new Date(now + 3_600_000).toISOString(), times: 2 },
    ])
    expect((await again.run('fetch', image.narHash)).exitCode).toBe(4)
    expect(await isConnected(again, liar.peerId)).toBe(false)
    expect(await again.json<BanJson>('unban', liar.peerId)).toMatchObject({ reason: 'it lied' })
    await again.untilPeers(1)
    expect(await again.json<ImageJson>('fetch', image.narHash)).toMatchObject({ state: 'verified' })
    expect((await again.run('unban', liar.peerId)).exitCode).toBe(4)
  })
})
