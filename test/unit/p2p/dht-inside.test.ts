import { expect, test } from 'vitest'
import { limitDht } from '../../../src/p2p/dht-inside.ts'

test('what the DHT keeps of a message is as large as its value, and not as the buffer that it came in', () => {
  const kept: Uint8Array[] = []
  const nothing = (): Promise<undefined> => Promise.resolve(undefined)
  const datastore = { put: (_key: unknown, value: Uint8Array) => { kept.push(value) } }
  limitDht({
    components: { datastore, peerStore: {} }, contentRouting: { routingTable: { kBucketSize: 20 } },
    rpc: { handleMessage: nothing, onIncomingStream: nothing }, network: { _writeReadMessage: nothing },
  } as never, {} as never)
  const value = Buffer.from('a record')
  expect(value.buffer.byteLength).toBeGreaterThan(value.byteLength)
  datastore.put('key', value)
  expect(kept.map(({ buffer, byteLength }) => [Buffer.from(buffer).toString(), byteLength])).toEqual([['a record', 8]])
})
