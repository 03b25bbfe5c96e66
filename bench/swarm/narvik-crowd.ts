import type { Crowd, CrowdSystem } from './crowd.ts'
import { together } from './crowd.ts'
import { Fleet } from './fleet.ts'
import type { Station } from './network.ts'

const MIB = 1024 * 1024
/** A host that finds nobody but a busy seed goes on looking. */
const PATIENCE = { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '900' }

export const narvik: CrowdSystem = { name: 'narvik', prepare }

async function prepare(stations: readonly Station[], file: string, dir: string): Promise<Crowd> {
  const fleet = await Fleet.start(dir, stations, { env: PATIENCE })
  const { seed, others } = fleet
  const { narHash } = await seed.client.import({ path: file })
  return {
    fetches: others.map(host => () => host.client.fetch({ ref: narHash })),
    usage: async () => together(await Promise.all(fleet.hosts.map(host => host.usage()))),
    books: async () => {
      const sent = (await seed.client.peers()).reduce((total, { bytesSent }) => total + bytesSent, 0)
      const byOthers = (await Promise.all(others.map(host => host.client.peers()))).flat().reduce((total, { bytesSent }) => total + bytesSent, 0)
      return [`by Narvik's own books the seed sent ${(sent / MIB).toFixed(1)} MiB of bodies, the others ${(byOthers / MIB).toFixed(1)} MiB`]
    },
    [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose](),
  }
}
