import { messageOf } from '../errors.ts'
import type { TaskContext } from './context.ts'
import type { Scrubber } from './scrub.ts'

export interface HostFacts {
  readonly version: string
  readonly startedAt: Date
  readonly dataDir: string
  readonly socket: string
  readonly fleet: boolean
  readonly scrubber: Pick<Scrubber, 'describe'>
}

/** What this host is, has and sees. */
export async function describeStatus({ catalog, content, node, nix, space, settings }: TaskContext, facts: HostFacts) {
  const images = { wanted: 0, receiving: 0, quarantined: 0, verified: 0, rejected: 0 }
  for (const { state } of catalog.list()) images[state]++
  return {
    peerId: node.peerId,
    addresses: node.addresses,
    version: facts.version,
    uptimeSeconds: Math.round((Date.now() - facts.startedAt.getTime()) / 1000),
    peers: node.peers().filter(peer => peer.direction !== null).length,
    dhtPeers: node.routingPeers,
    images,
    dataDir: facts.dataDir,
    socket: facts.socket,
    freeBytes: await content.freeBytes(),
    paused: space.paused,
    scrub: facts.scrubber.describe(),
    fleet: facts.fleet,
    nix: settings.useNix ? await describeNix(nix) : { available: false, detail: 'turned off in the config' },
  }
}

async function describeNix(nix: TaskContext['nix']): Promise<{ available: boolean, detail: string }> {
  try {
    const found = await nix.probe({})
    return found.available ? { available: true, detail: `${found.flavour} ${found.version}` } : { available: false, detail: found.reason }
  } catch (error) {
    return { available: false, detail: messageOf(error) }
  }
}
