import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startFleet, temporaryDirectory, until } from '../helpers/fleet.ts'

// Guard: a reply has a status and no words, and a stream that breaks off carries no reason.
it('a host that fails to serve tells its peers nothing of its files, and nobody its identity', async () => {
  const [giver, taker] = await startFleet(2, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } })
  const source = join(await temporaryDirectory(), 'image')
  for (const [index, damage] of [
    (path: string) => rm(path),
    async (path: string) => { await chmod(path, 0o644); await writeFile(path, 'shorter') },
  ].entries()) {
    await writeFile(source, `${index}`.repeat(100_000))
    const { narHash, path } = await giver.client.import({ path: source })
    await damage(path ?? '')
    const { exitCode, stderr } = await taker.run('fetch', narHash)
    expect(exitCode).not.toBe(0)
    expect(stderr).not.toContain(giver.dir)
    // The giver itself says where.
    await until(() => Promise.resolve(giver.log.includes(path ?? 'none')), 'the giver to notice')
  }
  expect(taker.log).not.toContain(giver.dir)
  const identity = await readFile(join(giver.dataDir, 'identity.key'))
  const seed = identity.subarray(-64)
  for (const log of [giver.log, taker.log]) {
    for (const form of [identity.toString('hex'), identity.toString('base64'), identity.toString('latin1').trim(), seed.toString('hex'), seed.toString('base64')]) expect(log).not.toContain(form)
  }
})
