import { chmod, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { startFleet, temporaryDirectory, type TestDaemon } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

/** Flips one bit of an image on the disk of the host that serves it, so that it serves exactly one wrong byte. */
async function damage(host: TestDaemon, { narHash }: ImageJson): Promise<void> {
  const file = join(host.dataDir, 'images', NarHash.parse(narHash).toNix32())
  await chmod(file, 0o600)
  const handle = await open(file, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, 543_210)
  byte[0] = (byte[0] ?? 0) ^ 1
  await handle.write(byte, 0, 1, 543_210)
  await handle.close()
}

async function importDisk(host: TestDaemon): Promise<ImageJson> {
  const source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, 0.9 * MIB)
  return host.json<ImageJson>('import', source)
}

describe('a provider that serves one wrong byte', () => {
  it('is named in the evidence of an image that stays out of reach', async () => {
    const [liar, host, other] = await startFleet(3, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '2' } })
    const image = await importDisk(liar)
    await damage(liar, image)

    const { exitCode, stdout } = await host.run('fetch', image.narHash, '--name', 'bad', '--json')
    expect(exitCode).toBe(5)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'verification-failed' } })

    const shown = await host.json<ImageDetailsJson>('show', image.narHash)
    expect(shown).toMatchObject({ state: 'rejected', path: null })
    const { evidence } = shown.journal.find(entry => entry.to === 'rejected') ?? {}
    const judge = evidence?.verdict?.stages.find(stage => stage.stage === 'nar-hash')
    expect(judge).toMatchObject({ verdict: 'fail', expected: image.narHash })
    expect(NarHash.parse(judge?.found ?? '').toSri()).not.toBe(image.narHash)
    expect(evidence?.peers).toEqual([expect.objectContaining({ peerId: liar.peerId, outcome: 'lied' })])

    // No path in any output, and no way to it.
    for (const args of [['list'], ['show', 'bad'], ['list', '--json'], ['show', 'bad', '--json'], ['transfers', '--json']]) {
      const { stdout: printed } = await host.run(...args)
      expect(printed).not.toContain(host.dataDir)
    }
    expect((await host.run('export', 'bad', join(host.dir, 'out'), '--json')).exitCode).toBe(1)
    expect(await readdir(join(host.dataDir, 'images'))).toEqual([])
    expect(await readdir(join(host.dataDir, 'by-name'))).toEqual([])
    await liar.kill('SIGKILL')
    // Neither announced nor served: the third host finds nobody.
    expect((await other.run('fetch', image.narHash, '--json')).exitCode).toBe(4)
  })

  it('is found out when an honest one has the image as well', async () => {
    const [liar, honest, host] = await startFleet(3, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '10' } })
    const image = await importDisk(liar)
    await honest.json('fetch', image.narHash)
    await damage(liar, image)

    // Whichever is asked first, the image ends verified; the liar is named if it was asked.
    const fetched = await host.json<ImageJson>('fetch', image.narHash)
    expect(fetched.state).toBe('verified')
    const { journal } = await host.json<ImageDetailsJson>('show', image.narHash)
    const rejections = journal.filter(entry => entry.to === 'rejected')
    for (const { evidence } of rejections) expect(evidence?.peers).toEqual([expect.objectContaining({ peerId: liar.peerId, outcome: 'lied' })])
    const liarWasAsked = journal.some(entry => entry.reason.includes(liar.peerId))
    expect(rejections.length).toBe(liarWasAsked ? 1 : 0)
  })
})
