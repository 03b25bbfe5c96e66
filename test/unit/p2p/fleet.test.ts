import { describe, expect, it } from 'vitest'
import { FleetKeyring, fleetKeys, handshakePrologue, isLoopback, keyOfKnock, knockFor } from '../../../src/p2p/fleet.ts'
import { fleetFingerprint } from '../../../src/fleet-key.ts'
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

const OLD = rangeOf(0, 32)
const NEXT = rangeOf(1, 32)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

describe('a fleet key', () => {
  it('makes one prologue, one fingerprint and one knock for each message, of which none shows it or another', () => {
    const message = rangeOf(9, 34)
    expect(handshakePrologue(OLD)).toEqual(handshakePrologue(OLD.slice()))
    expect(handshakePrologue(OLD)).not.toEqual(handshakePrologue(NEXT))
    expect(knockFor(OLD, message)).not.toEqual(knockFor(NEXT, message))
    expect(knockFor(OLD, message)).not.toEqual(knockFor(OLD, rangeOf(10, 34)))
    const derived = [handshakePrologue(OLD), knockFor(OLD, message)].map(hex)
    expect(new Set([hex(OLD), ...derived, fleetFingerprint(OLD)]).size).toBe(4)
    for (const text of [hex(OLD), ...derived]) expect(text).not.toContain(fleetFingerprint(OLD).slice(0, 8))
  })

  it('of another length is none', () => {
    for (const length of [0, 16, 31, 33, 64]) {
      expect(() => fleetKeys(new Uint8Array(length))).toThrow(/needed 32/)
      expect(() => fleetKeys(OLD, new Uint8Array(length))).toThrow(/needed 32/)
    }
  })

  it('is found by its knock among those that are accepted, and by nothing else', () => {
    const message = rangeOf(9, 34)
    expect(keyOfKnock([OLD, NEXT], knockFor(NEXT, message), message)).toEqual(NEXT)
    expect(keyOfKnock([OLD], knockFor(NEXT, message), message)).toBeUndefined()
    expect(keyOfKnock([OLD], knockFor(OLD, message), rangeOf(10, 34))).toBeUndefined()
    expect(keyOfKnock([OLD], knockFor(OLD, message).subarray(1), message)).toBeUndefined()
    expect(keyOfKnock([], knockFor(OLD, message), message)).toBeUndefined()
  })
})

describe('a keyring', () => {
  it('says whether a key has left it', () => {
    const ring = new FleetKeyring(fleetKeys(OLD))
    expect(ring.replace(fleetKeys(OLD, NEXT))).toBe(false)
    expect(ring.replace(fleetKeys(NEXT, OLD))).toBe(false)
    expect(ring.dial).toEqual(NEXT)
    expect(ring.accept).toEqual([NEXT, OLD])
    expect(ring.replace(fleetKeys(NEXT, NEXT))).toBe(true)
    expect(ring.accept).toEqual([NEXT])
  })
})
