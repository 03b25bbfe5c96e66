import { createHash } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import { NarvikError } from '../errors.ts'

/** Bytes of a fleet key. */
export const FLEET_KEY_BYTES = 32

/** What both ends of a Noise handshake must agree on: derived, so that the key itself is in no other part's memory. */
export function noisePrologue(fleetKey: Uint8Array): Uint8Array {
  if (fleetKey.length !== FLEET_KEY_BYTES) {
    throw new NarvikError('invalid-config', `Cannot use the fleet key: found ${fleetKey.length} bytes, needed ${FLEET_KEY_BYTES}`)
  }
  return derive('narvik fleet prologue 1', fleetKey)
}

/** The mDNS service of a fleet: fleets that share a network don't knock at each other's doors. */
export function serviceTag(fleetKey: Uint8Array | undefined): string {
  if (fleetKey === undefined) return '_narvik._udp.local'
  return `_narvik-${Buffer.from(derive('narvik fleet mdns 1', fleetKey)).toString('hex').slice(0, 8)}._udp.local`
}

/**
 * @throws NarvikError `refused` where an address would let strangers in: without a fleet key only loopback is listened on,
 * unless `allowOpen`; `invalid-config` where a text is no TCP multiaddr.
 */
export function checkListen(listen: readonly string[], { fleetKey, allowOpen }: { fleetKey: Uint8Array | undefined, allowOpen: boolean }): void {
  for (const address of listen) {
    const loopback = isLoopback(address)
    if (loopback || allowOpen || fleetKey !== undefined) continue
    throw new NarvikError('refused', `Cannot listen on ${address}: found no fleet key, needed one for an address beyond loopback`, {
      hint: 'Make a fleet key and give it to every host of the fleet, or listen on /ip4/127.0.0.1/tcp/0',
    })
  }
}

/** Whether only this machine reaches the address. */
export function isLoopback(address: string): boolean {
  const [host, transport] = componentsOf(address)
  if (host?.value === undefined || transport?.name !== 'tcp') {
    throw new NarvikError('invalid-config', `Cannot listen on ${address}: found no TCP address, needed one like /ip4/127.0.0.1/tcp/4411`)
  }
  if (host.name === 'ip4') return host.value.startsWith('127.')
  return host.name === 'ip6' && host.value === '::1'
}

function componentsOf(address: string): { name: string, value?: string | undefined }[] {
  try {
    return multiaddr(address).getComponents()
  } catch (error) {
    throw new NarvikError('invalid-config', `Cannot listen on ${address}: found a text that is no multiaddr, needed one like /ip4/127.0.0.1/tcp/4411`, { cause: error })
  }
}

function derive(purpose: string, fleetKey: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(`${purpose}\0`).update(fleetKey).digest())
}
