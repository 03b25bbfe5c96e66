import { expect, onTestFinished, vi } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { createNode, type NodeComponents, type NodeInit, type P2pNode } from '../../src/p2p/node.ts'
import { MadeUpSource, rangeOf } from './bytes.ts'

export const LOOPBACK = '/ip4/127.0.0.1/tcp/0'
export const HASH = NarHash.fromBytes(rangeOf(0, 32))
/** Long enough for the slowest machine, and never waited for in vain. */
export const PATIENCE_MS = 30_000

/** A started node on loopback, stopped when the test is over. */
export async function startNode(init: Partial<NodeInit> = {}, components: Partial<NodeComponents> = {}): Promise<P2pNode> {
  const node = await createNode({ logger: silentLogger, source: new MadeUpSource(HASH, 1_000_000), ...components }, {
    listen: [LOOPBACK], redialMinMs: 20, redialMaxMs: 200, ...init,
  })
  await node.start()
  onTestFinished(() => node.stop())
  return node
}

/** Nodes that each know the first, and thereby find each other. */
export async function startFleet(count: number, init: Partial<NodeInit> = {}, components: Partial<NodeComponents> = {}): Promise<P2pNode[]> {
  const first = await startNode(init, components)
  const rest = await Promise.all(Array.from({ length: count - 1 }, () => startNode({ ...init, bootstrap: first.addresses }, components)))
  const nodes = [first, ...rest]
  await allConnected(nodes)
  await vi.waitFor(() => {
    for (const node of nodes) expect(node.routingPeers).toBe(count - 1)
  }, { timeout: PATIENCE_MS })
  return nodes
}

/** Resolves when each is connected to each. */
export async function allConnected(nodes: readonly P2pNode[]): Promise<void> {
  const signal = AbortSignal.timeout(PATIENCE_MS)
  await Promise.all(nodes.flatMap(a => nodes.filter(b => a !== b).map(b => a.waitForPeer(b.peerId, { signal }))))
}
