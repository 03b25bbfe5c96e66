import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { createNode } from '../../src/p2p/node.ts'
import { startFleet, temporaryDirectory } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024
const BUDGET_MIB = 200

describe('resident memory', () => {
  it('stays under its budget on both ends while 1 GiB moves, with a reader that stalls', async () => {
    const source = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(source, 1024 * MIB)
    const [a, b] = await startFleet(2)
    const image = await a.json<ImageJson>('import', source)

    const staller = await createNode({ logger: silentLogger, source: { describe: () => Promise.resolve(undefined), read: () => { throw new Error('nothing here') } } }, { listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap: a.addresses })
    await staller.start()
    try {
      await staller.waitForPeer(a.peerId, { signal: AbortSignal.timeout(30_000) })
      const answer = await fetchNar(staller, a.peerId, NarHash.parse(image.narHash), 0, image.narSize ?? 0)
      if (answer.status !== 'ok') throw new Error(answer.status)
      const reader = answer.body[Symbol.asyncIterator]()
      await reader.next()
      // The reader takes no more; the other fetch goes on beside it.
      await b.client.fetch({ ref: image.narHash })
      const peaks = { a: (await a.memory()).peak, b: (await b.memory()).peak }
      expect(peaks.a, `importing and serving: ${peaks.a} MiB`).toBeLessThan(BUDGET_MIB)
      expect(peaks.b, `fetching: ${peaks.b} MiB`).toBeLessThan(BUDGET_MIB)
      await reader.return?.()
    } finally {
      await staller.stop()
    }
  })
})
