import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson, PublishedNameJson } from '../../src/control/api.ts'
import { createFleetKey } from '../../src/fleet-key.ts'
import { formatSecretKey } from '../../src/nix/signature.ts'
import { startFleet, temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'
import { makePublisher } from '../helpers/names.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

describe('a published name', () => {
  it('is fetched by those who trust its publisher, moves on, outlives a restart, and shows no key', async () => {
    const dir = await temporaryDirectory()
    const [keyFile, fleetKey] = [join(dir, 'secret.key'), join(dir, 'fleet.key')]
    const publisher = makePublisher()
    const secret = formatSecretKey(publisher.key)
    const fleetSecret = Buffer.from(await createFleetKey(fleetKey)).toString('hex')
    await writeFile(keyFile, `${secret}\n`, { mode: 0o600 })
    const env = { NARVIK_FLEET_KEY_FILE: fleetKey, NARVIK_TRUST_KEYS: publisher.publicKey }
    const [host, other] = await startFleet(2, { env })
    const images: ImageJson[] = []
    for (const seed of [1, 2]) {
      await makeRawDisk(join(dir, `disk-${seed}`), seed * 1024 * 1024)
      images.push(await host.json<ImageJson>('import', join(dir, `disk-${seed}`)))
    }
    const publish = (image: ImageJson | undefined, ...args: string[]): Promise<PublishedNameJson> => host.json('publish', image?.narHash ?? '', '--name', 'web', '--key', keyFile, ...args)

    expect(await publish(images[0], '--valid', '30')).toMatchObject({ name: 'web', publisher: publisher.publicKey, narHash: images[0]?.narHash, own: true, trusted: true })
    expect(await other.json<ImageJson>('fetch', 'web')).toMatchObject({ narHash: images[0]?.narHash, name: 'web', state: 'verified' })
    await publish(images[1])
    expect(await other.json<ImageJson>('fetch', 'fleet-1/web')).toMatchObject({ narHash: images[1]?.narHash, name: 'web', state: 'verified' })
    expect(await other.json<ImageDetailsJson>('show', 'web')).toMatchObject({ publishedNames: [{ name: 'web', publisher: publisher.publicKey, own: false }] })

    // The publisher's host is started anew: whoever comes then is told of the name as well.
    await host.stop()
    await other.stop()
    const again = await TestDaemon.start({ dir: host.dir, env })
    const third = await TestDaemon.start({ env, bootstrap: [again] })
    await third.untilPeers(1)
    await until(async () => (await third.run('fetch', 'web')).exitCode === 0, 'the name on a host that has just come')
    expect(await third.json<ImageJson>('show', 'web')).toMatchObject({ narHash: images[1]?.narHash })

    await chmod(keyFile, 0o644)
    expect((await again.run('publish', images[0]?.narHash ?? '', '--name', 'web', '--key', keyFile)).exitCode).toBe(6)
    for (const { log } of [host, other, again, third]) {
      expect(log).not.toContain(fleetSecret)
      expect(log).not.toContain(secret.slice(secret.indexOf(':') + 1, -4))
    }
  })
})
