import { expect, test, vi } from 'vitest'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import type { P2pNode } from '../../src/p2p/node.ts'
import { HASH, PATIENCE_MS, startFleet } from '../helpers/nodes.ts'

/** What all nodes together counted, by protocol. */
function sums(nodes: readonly P2pNode[]): Record<string, { sent: number, received: number, sentBroken: number, receivedBroken: number }> {
  const all: ReturnType<typeof sums> = {}
  for (const node of nodes) {
    for (const [protocol, totals] of node.traffic) {
      const sum = all[protocol] ??= { sent: 0, received: 0, sentBroken: 0, receivedBroken: 0 }
      for (const key of ['sent', 'received', 'sentBroken', 'receivedBroken'] as const) sum[key] += totals[key]
    }
  }
  return all
}

async function untilQuiet(nodes: readonly P2pNode[]): Promise<void> {
  await vi.waitFor(() => { expect(nodes.flatMap(node => node.peers()).reduce((sum, { streams }) => sum + streams, 0)).toBe(0) }, { timeout: PATIENCE_MS })
}

/** Takes a range from a peer; of one that is left early, only so many bytes. */
async function take(node: P2pNode, peerId: string, length: number, most = Infinity): Promise<number> {
  const answer = await fetchNar(node, peerId, HASH, 0, length)
  if (answer.status !== 'ok') return 0
  let taken = 0
  for await (const part of answer.body) {
    taken += part.byteLength
    if (taken >= most) break
  }
  return taken
}

test('over six hosts, what all sent is what all received, and what broke off is told apart', async () => {
  const nodes = await startFleet(6)
  const pairs = nodes.flatMap(a => nodes.filter(b => b !== a).map(b => [a, b] as const))
  const whole = await Promise.all(pairs.map(async ([a, b], index) => {
    await fetchMetadata(a, b.peerId, HASH)
    return take(a, b.peerId, 10_000 + 977 * index)
  }))
  await untilQuiet(nodes)
  const orderly = sums(nodes)
  for (const [protocol, { sent, received, sentBroken, receivedBroken }] of Object.entries(orderly)) {
    expect({ protocol, sent, sentBroken, receivedBroken }).toEqual({ protocol, sent: received, sentBroken: 0, receivedBroken: 0 })
    expect(sent).toBeGreaterThan(0)
  }
  const wanted = whole.reduce((sum, bytes) => sum + bytes, 0)
  expect(orderly['/narvik/nar/1.0.0']?.received).toBe(wanted)

  const [first, second, third] = nodes
  if (first === undefined || second === undefined || third === undefined) throw new Error('too few')
  // One reader leaves early, others read on beside it.
  const [early, late] = await Promise.all([take(first, second.peerId, 1_000_000, 100_000), take(third, second.peerId, 1_000_000)])
  await untilQuiet(nodes)
  const { sent = 0, received = 0, sentBroken = 0, receivedBroken = 0 } = sums(nodes)['/narvik/nar/1.0.0'] ?? {}
  expect(receivedBroken).toBe(early)
  expect(received).toBe(wanted + early + late)
  // The books of the orderly exchanges still balance; what is lost is what the broken one was sent and nobody took.
  expect(sent - sentBroken).toBe(received - receivedBroken)
  expect(sent - received).toBe(sentBroken - receivedBroken)
  expect(sentBroken).toBeGreaterThanOrEqual(receivedBroken)
  // By peer they are the same sums.
  expect(nodes.flatMap(a => nodes.map(b => a.trafficOf(b.peerId).sent)).reduce((sum, bytes) => sum + bytes, 0)).toBe(Object.values(sums(nodes)).reduce((sum, totals) => sum + totals.sent, 0))
})
