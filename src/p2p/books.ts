import type { NarHash } from '../image/nar-hash.ts'
import type { Flight } from './in-flight.ts'
import type { Pace } from './pace.ts'
import type { Traffic } from './protocol.ts'

/** What moved under one protocol, in exchanges with all peers together. */
export interface ProtocolTotals {
  /** Bytes of bodies that came in; and of these, in exchanges that did not end in order. */
  readonly received: number
  readonly receivedBroken: number
  /** Bytes of bodies handed over to be sent; and of these, in exchanges that did not end in order. */
  readonly sent: number
  readonly sentBroken: number
}

/** An exchange that is under way, in which this host sends bytes of an image. */
export interface Sending {
  readonly peerId: string
  readonly narHash: NarHash
  readonly sent: number
  /** Milliseconds since 1970. */
  readonly startedAt: number
}

type Totals = { -readonly [Key in keyof ProtocolTotals]: number }

/**
 * What was received and sent, per peer and per protocol. A sender can't know what became of the bytes of an exchange that
 * broke off, so those are told apart: over a whole fleet, what was sent in exchanges that ended in order is what was
 * received in them, to the byte, and what is lost is the difference of the broken ones.
 */
export class Books {
  readonly #peers = new Map<string, Traffic>()
  readonly #protocols = new Map<string, Totals>()
  readonly #sending = new Set<Sending>()
  readonly #boundsOf: (peerId: string) => Pick<Traffic, 'pace' | 'flight'>

  /** `boundsOf` gives what keeps the limits of a peer, and is called once for each; without it nothing is held back. */
  constructor(boundsOf: (peerId: string) => Pick<Traffic, 'pace' | 'flight'> = () => ({})) {
    this.#boundsOf = boundsOf
  }

  /** The sums of a peer; they live as long as the books. */
  of(peerId: string): Traffic {
    const known = this.#peers.get(peerId) ?? { received: 0, sent: 0, ...this.#boundsOf(peerId) }
    this.#peers.set(peerId, known)
    return known
  }

  /** Opens the account of one exchange. */
  open(peerId: string, protocol: string): Traffic {
    const totals = this.#protocols.get(protocol) ?? { received: 0, receivedBroken: 0, sent: 0, sentBroken: 0 }
    this.#protocols.set(protocol, totals)
    return new Account(this.of(peerId), totals, (narHash, account) => {
      const sending: Sending = { peerId, narHash, startedAt: Date.now(), get sent() { return account.sent } }
      this.#sending.add(sending)
      return () => { this.#sending.delete(sending) }
    })
  }

  /** What is being sent. */
  get sending(): readonly Sending[] {
    return [...this.#sending]
  }

  /** By protocol. */
  totals(): ReadonlyMap<string, ProtocolTotals> {
    return this.#protocols
  }
}

class Account implements Traffic {
  readonly #peer: Traffic
  readonly #totals: Totals
  #received = 0
  #sent = 0
  #isBroken = false
  readonly #list: (narHash: NarHash, account: Account) => () => void
  #unlist: (() => void) | undefined

  constructor(peer: Traffic, totals: Totals, list: (narHash: NarHash, account: Account) => () => void) {
    this.#peer = peer
    this.#totals = totals
    this.#list = list
  }

  sends(narHash: NarHash): void {
    this.#unlist ??= this.#list(narHash, this)
  }

  end(): void {
    this.#unlist?.()
  }

  get pace(): Pace | undefined {
    return this.#peer.pace
  }

  get flight(): Flight | undefined {
    return this.#peer.flight
  }

  get received(): number {
    return this.#received
  }

  set received(bytes: number) {
    const more = bytes - this.#received
    this.#received = bytes
    this.#peer.received += more
    this.#totals.received += more
    if (this.#isBroken) this.#totals.receivedBroken += more
  }

  get sent(): number {
    return this.#sent
  }

  set sent(bytes: number) {
    const more = bytes - this.#sent
    this.#sent = bytes
    this.#peer.sent += more
    this.#totals.sent += more
    if (this.#isBroken) this.#totals.sentBroken += more
  }

  breakOff(): void {
    if (this.#isBroken) return
    this.#isBroken = true
    this.#totals.receivedBroken += this.#received
    this.#totals.sentBroken += this.#sent
  }
}
