import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import { NarvikError } from '../errors.ts'
import { FLEET_KEY_BYTES } from '../fleet-key.ts'

/** Bytes of a knock. */
export const KNOCK_BYTES = 32

/**
 * The keys of the fleet as this host holds them. To be read anew at each handshake and not kept: a reload of the configuration may put others in
 * their place. Two fleets never have a key in common, and during a rotation a fleet has two.
 */
export interface FleetKeys {
  /** The key that this host dials with; undefined where it is in no fleet. */
  readonly dial: Uint8Array | undefined
  /** The keys that whoever dials may have; `dial` is one of them. Empty where this host is in no fleet. */
  readonly accept: readonly Uint8Array[]
}

/** The keys of a host that is in no fleet. */
export const NO_FLEET: FleetKeys = { dial: undefined, accept: [] }

/**
 * The keys of a host of a fleet; `others` are accepted besides `dial`.
 * @throws NarvikError `invalid-config` where one of them has another length.
 */
export function fleetKeys(dial: Uint8Array, ...others: Uint8Array[]): FleetKeys {
  for (const key of [dial, ...others]) checkLength(key)
  return { dial, accept: [dial, ...others.filter(key => Buffer.compare(key, dial) !== 0)] }
}

/** Keys that a reload replaces while others hold this object. */
export class FleetKeyring implements FleetKeys {
  #keys: FleetKeys

  constructor(keys: FleetKeys) {
    this.#keys = keys
  }

  get dial(): Uint8Array | undefined {
    return this.#keys.dial
  }

  get accept(): readonly Uint8Array[] {
    return this.#keys.accept
  }

  /** Says whether a key that was accepted before is accepted no longer. */
  replace(keys: FleetKeys): boolean {
    const gone = this.#keys.accept.some(old => !keys.accept.some(key => Buffer.compare(key, old) === 0))
    this.#keys = keys
    return gone
  }
}

/** What both ends of a handshake must agree on: derived, so that the key itself is in no other part's memory. */
export function handshakePrologue(fleetKey: Uint8Array): Uint8Array {
  return derive('narvik fleet prologue 1', checkLength(fleetKey))
}

/** What shows to a host of the fleet, and to nobody else, that whoever sent `message` has the key. */
export function knockFor(fleetKey: Uint8Array, message: Uint8Array): Uint8Array {
  return Uint8Array.from(createHmac('sha256', derive('narvik fleet knock 1', checkLength(fleetKey))).update(message).digest())
}

/** The key that a knock was made with, if it is one of `accept`. */
export function keyOfKnock(accept: readonly Uint8Array[], knock: Uint8Array, message: Uint8Array): Uint8Array | undefined {
  return accept.find(key => knock.byteLength === KNOCK_BYTES && timingSafeEqual(knockFor(key, message), knock))
}

/**
 * @throws NarvikError `refused` where an address would let strangers in: without a fleet key only loopback is listened on,
 * unless `allowOpen`; `invalid-config` where a text is no TCP multiaddr.
 * @returns whether strangers are let in, as they may be.
 */
export function checkListen(listen: readonly string[], { inFleet, allowOpen }: { inFleet: boolean, allowOpen: boolean }): boolean {
  const [beyond] = listen.filter(address => !isLoopback(address))
  if (beyond === undefined || inFleet) return false
  if (allowOpen) return true
  throw new NarvikError('refused', `Cannot listen on ${beyond}: found no fleet key, needed one for an address beyond loopback`, {
    hint: 'Make one with `narvik fleet create FILE`, give the file to every host of the fleet and name it as fleet_key_file; or listen on /ip4/127.0.0.1/tcp/0',
  })
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

function checkLength(fleetKey: Uint8Array): Uint8Array {
  if (fleetKey.length === FLEET_KEY_BYTES) return fleetKey
  throw new NarvikError('invalid-config', `Cannot use the fleet key: found ${fleetKey.length} bytes, needed ${FLEET_KEY_BYTES}`)
}

function derive(purpose: string, fleetKey: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(`${purpose}\0`).update(fleetKey).digest())
}
