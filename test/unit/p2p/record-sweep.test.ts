import { Record as DhtRecord } from '@libp2p/kad-dht'
import { expect, it } from 'vitest'
import { CLOCK_SKEW_MS, RECORD_LIFETIME_MS } from '../../../src/limits.ts'
import { silentLogger } from '../../../src/log.ts'
import { RecordSweep } from '../../../src/p2p/record-sweep.ts'

it('removes records that are older than any that is accepted, and no others', async () => {
  const now = 1_800_000_000_000
  const oldest = 2 * RECORD_LIFETIME_MS + 2 * CLOCK_SKEW_MS
  const rows = new Map([0, oldest, oldest + 1].map(age => [`/dht/record/${age}`, new DhtRecord(new Uint8Array(1), new Uint8Array(2), new Date(now - age)).serialize().subarray()]))
  const store = {
    async *query({ prefix }: { prefix: string }) {
      await Promise.resolve()
      for (const [key, value] of rows) if (key.startsWith(prefix)) yield { key, value }
    },
    delete: (key: string) => rows.delete(key),
  }
  await new RecordSweep({ store, logger: silentLogger }, { now: () => now }).sweep()
  expect([...rows.keys()]).toEqual(['/dht/record/0', `/dht/record/${oldest}`])
})
