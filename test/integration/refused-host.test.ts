import { expect, it } from 'vitest'
import { TestDaemon } from '../helpers/fleet.ts'

/** When a host has turned somebody away, in seconds of the day. */
function refusals({ log }: TestDaemon): number[] {
  const lines = log.split('\n').filter(line => line.includes('inbound connection upgrade failed') && line.includes('blocked by gater'))
  return lines.map(line => {
    const [hours = 0, minutes = 0, seconds = 0] = line.slice(0, 8).split(':').map(Number)
    return (hours * 60 + minutes) * 60 + seconds
  })
}

// Watches that libp2p's own queue of redials is off: the mesh waits between two dials.
it('a host that is let in by nobody does not call again and again', async () => {
  const outcast = await TestDaemon.start()
  const host = await TestDaemon.start({ bootstrap: [outcast] })
  await outcast.untilPeers(1)
  const [address = ''] = host.addresses
  await host.stop()
  // In the same place, so that the other one finds it by itself.
  const strict = await TestDaemon.start({ dir: host.dir, env: { NARVIK_LISTEN: address.replace(/\/p2p\/.*/, ''), NARVIK_PEERS_DENY: outcast.peerId } })
  await expect.poll(() => {
    const at = refusals(strict)
    return (at.at(-1) ?? 0) - (at[0] ?? 0)
  }).toBeGreaterThanOrEqual(4)
  expect(refusals(strict).length).toBeLessThan(30)
})
