import { describe, expect, it } from 'vitest'
import { isLoopback, noisePrologue, serviceTag } from '../../../src/p2p/fleet.ts'
import { rangeOf } from '../../helpers/bytes.ts'
import { expectFailure } from '../../helpers/failure.ts'

describe('isLoopback', () => {
  it.each([
    ['/ip4/127.0.0.1/tcp/0', true], ['/ip4/127.255.0.9/tcp/4411', true], ['/ip6/::1/tcp/0', true], ['/ip6/0:0:0:0:0:0:0:1/tcp/0', true],
    ['/ip4/0.0.0.0/tcp/0', false], ['/ip4/128.0.0.1/tcp/0', false], ['/ip4/1.2.7.0/tcp/127', false], ['/ip6/::/tcp/0', false], ['/ip6/::ffff:127.0.0.1/tcp/0', false],
    ['/dns4/localhost/tcp/0', false], ['/dns/127.0.0.1/tcp/0', false],
  ])('%s: %s', (address, loopback) => {
    expect(isLoopback(address)).toBe(loopback)
  })

  it.each(['', '/ip4/127.0.0.1', '/unix/tmp', '/ip4/127.0.0.1/udp/1/quic-v1', 'localhost:80'])('refuses %j', async address => {
    await expectFailure((async () => { await Promise.resolve(); return isLoopback(address) })(), 'invalid-config', /Cannot listen on/)
  })
})

describe('a fleet key', () => {
  it('makes one prologue and one service, and shows neither itself nor one in the other', () => {
    const key = rangeOf(0, 32)
    expect(noisePrologue(key)).toEqual(noisePrologue(key.slice()))
    expect(noisePrologue(key)).not.toEqual(noisePrologue(rangeOf(1, 32)))
    expect(serviceTag(key)).not.toBe(serviceTag(rangeOf(1, 32)))
    const label = serviceTag(key).split('.')[0]?.slice(1) ?? ''
    expect(label.length).toBeLessThanOrEqual(15)
    const hex = label.split('-')[1] ?? ''
    expect(Buffer.from(key).toString('hex')).not.toContain(hex)
    expect(Buffer.from(noisePrologue(key)).toString('hex')).not.toContain(hex)
  })
})
