import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it } from 'vitest'
import { HalfOpen, type HalfOpenConnection, sourceOf } from '../../../src/p2p/half-open.ts'

class FakeConnection extends EventTarget {
  readonly remoteAddr
  readonly status = 'open'
  constructor(host: string) {
    super()
    this.remoteAddr = multiaddr(`${host}/tcp/1000`)
  }
}

function from(host: string): HalfOpenConnection & EventTarget {
  return new FakeConnection(host)
}

describe('handshakes that are not over', () => {
  it('are bounded for each address, and one address takes nothing from another', () => {
    const halfOpen = new HalfOpen({ perAddress: 2 })
    expect(['/ip4/10.0.0.1', '/ip4/10.0.0.1', '/ip4/10.0.0.1', '/ip4/10.0.0.2'].map(host => halfOpen.admit(from(host)))).toEqual([true, true, false, true])
  })

  it('count until they are done or closed, and once', () => {
    const halfOpen = new HalfOpen({ perAddress: 2 })
    const [done, closed] = [from('/ip4/10.0.0.1'), from('/ip4/10.0.0.1')]
    for (const connection of [done, closed]) expect(halfOpen.admit(connection)).toBe(true)
    halfOpen.settle(done)
    done.dispatchEvent(new Event('close'))
    expect([from('/ip4/10.0.0.1'), from('/ip4/10.0.0.1')].map(connection => halfOpen.admit(connection))).toEqual([true, false])
    closed.dispatchEvent(new Event('close'))
    expect([from('/ip4/10.0.0.1'), from('/ip4/10.0.0.1')].map(connection => halfOpen.admit(connection))).toEqual([true, false])
  })
})

it.each([
  ['/ip4/10.0.0.1/tcp/1', '10.0.0.1'],
  ['/ip6/2001:db8:0:1::5/tcp/1', '2001:db8:0:1'],
  ['/ip6/2001:db8:0:1:2:3:4:5/tcp/1', '2001:db8:0:1'],
  ['/ip6/2001:db8::5/tcp/1', '2001:db8:0:0'],
  ['/ip6/::1/tcp/1', '0:0:0:0'],
  ['/ip6/fe80::1%eth0/tcp/1', 'fe80:0:0:0'],
  ['/ip6/::ffff:10.0.0.1/tcp/1', '::ffff:10.0.0.1'],
])('%s comes from %s', (address, source) => {
  expect(sourceOf(address)).toBe(source)
})
