import type { MultiaddrConnection } from '@libp2p/interface'
import { MAX_HALF_OPEN_PER_ADDRESS } from '../limits.ts'

/** What is used of a connection. */
export type HalfOpenConnection = Pick<MultiaddrConnection, 'remoteAddr' | 'addEventListener' | 'status'>

/** Groups of 16 bits that an IPv6 address has, and those that a network of one holder has in common. */
const GROUPS = 8
const NETWORK_GROUPS = 4

/** Counts the connections whose other end has not shown yet that it belongs here, by the address that they come from: whoever can open sockets can open many. */
export class HalfOpen {
  readonly #perAddress: number
  readonly #counts = new Map<string, number>()
  readonly #settle = new WeakMap<HalfOpenConnection, () => void>()

  constructor({ perAddress = MAX_HALF_OPEN_PER_ADDRESS }: { perAddress?: number } = {}) {
    this.#perAddress = perAddress
  }

  /** Whether one more connection from its address may begin its handshake; it counts until it is settled or closed. */
  admit(connection: HalfOpenConnection): boolean {
    const source = sourceOf(connection.remoteAddr.toString())
    const count = this.#counts.get(source) ?? 0
    if (count >= this.#perAddress) return false
    if (connection.status !== 'open') return true
    this.#counts.set(source, count + 1)
    let isOpen = true
    const settle = (): void => {
      if (!isOpen) return
      isOpen = false
      const left = (this.#counts.get(source) ?? 1) - 1
      if (left > 0) this.#counts.set(source, left)
      else this.#counts.delete(source)
    }
    this.#settle.set(connection, settle)
    connection.addEventListener('close', settle)
    return true
  }

  /** The other end has shown who it is. */
  settle(connection: HalfOpenConnection): void {
    this.#settle.get(connection)?.()
  }
}

/** Who a multiaddr stands for: an IPv4 address, or the network of an IPv6 address, of which one host may have as many addresses as it likes. */
export function sourceOf(address: string): string {
  const [, family, host = ''] = address.split('/')
  return family === 'ip6' && !host.includes('.') ? networkOf(host) : host
}

function networkOf(host: string): string {
  const [head = [], tail = []] = (host.split('%')[0] ?? '').split('::').map(part => part.split(':').filter(group => group !== ''))
  const zeros = Array.from({ length: Math.max(0, GROUPS - head.length - tail.length) }, () => '0')
  return [...head, ...zeros, ...tail].slice(0, NETWORK_GROUPS).map(group => group.replace(/^0+(?=.)/, '')).join(':')
}
