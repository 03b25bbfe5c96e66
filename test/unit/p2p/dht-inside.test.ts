import { expect, it } from 'vitest'
import { MAX_DHT_ANSWER_BYTES, MAX_DHT_REQUEST_BYTES, MAX_HEARD_PEERS } from '../../../src/limits.ts'
import { limitDht } from '../../../src/p2p/dht-inside.ts'

/** Of the DHT, what is looked into: each part keeps what it was given. */
function fakeDht() {
  const kept: Uint8Array[] = []
  const heard: unknown[] = []
  const nothing = (): Promise<undefined> => Promise.resolve(undefined)
  const dht = {
    components: { datastore: { put: (_key: unknown, value: Uint8Array) => { kept.push(value) } }, peerStore: {} },
    contentRouting: { routingTable: { kBucketSize: 20, size: 3 } },
    rpc: { handleMessage: nothing, onIncomingStream: nothing as (stream: unknown) => Promise<undefined> },
    network: { _writeReadMessage: nothing as (stream: unknown) => Promise<undefined>, safeDispatchEvent: (_type: string, event?: unknown) => { heard.push(event); return true } },
  }
  limitDht(dht as never, {} as never)
  return { ...dht, kept, heard }
}

function fakeStream() {
  const events = new EventTarget()
  const aborted: Error[] = []
  return {
    aborted, addEventListener: events.addEventListener.bind(events), abort: (error: Error) => { aborted.push(error) },
    bring: (bytes: number) => { events.dispatchEvent(Object.assign(new Event('message'), { data: Buffer.alloc(bytes) })) },
  }
}

it('what the DHT keeps of a message is as large as its value, and not as the buffer that it came in', () => {
  const { kept, components: { datastore } } = fakeDht()
  const value = Buffer.from('a record')
  expect(value.buffer.byteLength).toBeGreaterThan(value.byteLength)
  datastore.put('key', value)
  expect(kept.map(({ buffer, byteLength }) => [Buffer.from(buffer).toString(), byteLength])).toEqual([['a record', 8]])
})

// Watches the bytes of a message of another host: of an answer, and of a request (boundMessages).
it.each([['an answer', MAX_DHT_ANSWER_BYTES], ['a request', MAX_DHT_REQUEST_BYTES]] as const)('%s that is too long ends with its stream, and a long one does not', async (what, most) => {
  const { rpc, network } = fakeDht()
  const stream = fakeStream()
  await (what === 'an answer' ? network._writeReadMessage(stream) : rpc.onIncomingStream(stream))
  stream.bring(most - 1)
  stream.bring(1)
  expect(stream.aborted).toEqual([])
  stream.bring(1)
  expect(stream.aborted.map(({ message }) => message)).toEqual([`found a message of more than ${most} bytes, needed a shorter one`])
})

// Watches the number of peers that one message may have this host hear of (hearOfFew).
it('no message has this host hear of more peers than one that is meant', async () => {
  const { network, heard } = fakeDht()
  for (let peer = 0; peer < 1000; peer++) network.safeDispatchEvent('peer', peer)
  expect(heard).toHaveLength(MAX_HEARD_PEERS)
  network.safeDispatchEvent('another event')
  expect(heard).toHaveLength(MAX_HEARD_PEERS + 1)
  await Promise.resolve()
  network.safeDispatchEvent('peer', 'of the next message')
  expect(heard.at(-1)).toBe('of the next message')
})

// Watches that a look-up does not end at the providers that the first peer names (findAllProviders).
it('a look-up of providers has no number of them at which it ends', () => {
  const { contentRouting: { routingTable } } = fakeDht()
  expect([routingTable.kBucketSize, routingTable.size]).toEqual([Infinity, 3])
})
