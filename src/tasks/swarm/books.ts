import { z } from 'zod'
import type { NarHash } from '../../image/nar-hash.ts'
import type { PeerShare, Sources } from '../../image/verdict.ts'

const account = z.strictObject({ peerId: z.string().max(128), bytes: z.int().min(0), wasted: z.int().min(0), outcome: z.enum(['used', 'lied', 'failed']), detail: z.string().max(1000).nullable() })
export const bookKept = z.strictObject({
  peers: z.array(account),
  reused: z.array(z.strictObject({ narHash: z.string().max(128), bytes: z.int().min(0) })),
  zeros: z.int().min(0),
})

/** Where the bytes of one image came from, in the form that is kept. */
export type BookKept = z.infer<typeof bookKept>

type Account = { -readonly [Field in keyof z.infer<typeof account>]: z.infer<typeof account>[Field] }

/** Where the bytes of one image came from. What each peer sent in vain is counted beside what was of use. */
export class Books {
  readonly #peers = new Map<string, Account>()
  readonly #reused = new Map<string, number>()
  #zeros: number

  constructor({ peers, reused, zeros }: BookKept = { peers: [], reused: [], zeros: 0 }) {
    for (const one of peers) this.#peers.set(one.peerId, { ...one })
    for (const { narHash, bytes } of reused) this.#reused.set(narHash, bytes)
    this.#zeros = zeros
  }

  received(peerId: string, bytes: number): void {
    this.#account(peerId).bytes += bytes
  }

  wasted(peerId: string, bytes: number): void {
    this.#account(peerId).wasted += bytes
  }

  /** Bytes that another image of this host had. */
  reused(narHash: NarHash, bytes: number): void {
    this.#reused.set(narHash.toSri(), (this.#reused.get(narHash.toSri()) ?? 0) + bytes)
  }

  /** Bytes that are zeros, and were neither sent nor written. */
  zeros(bytes: number): void {
    this.#zeros += bytes
  }

  lied(peerId: string, detail: string): void {
    Object.assign(this.#account(peerId), { outcome: 'lied', detail })
  }

  failed(peerId: string, detail: string): void {
    const one = this.#account(peerId)
    if (one.outcome !== 'lied') one.detail = detail.slice(0, 1000)
  }

  /** The peers that sent something of use, in the order of their first bytes. */
  get senders(): string[] {
    return [...this.#peers.values()].filter(({ bytes }) => bytes > 0).map(({ peerId }) => peerId)
  }

  bytesPerPeer(): { peerId: string, bytes: number }[] {
    return [...this.#peers.values()].filter(({ bytes }) => bytes > 0).map(({ peerId, bytes }) => ({ peerId, bytes }))
  }

  /** What each peer did, for the evidence. */
  shares(verdict: 'pass' | 'fail'): PeerShare[] {
    return [...this.#peers.values()].map(({ peerId, bytes, wasted, outcome, detail }) => {
      const share = { peerId, bytes, wasted, detail }
      if (outcome === 'lied') return { ...share, outcome }
      if (bytes === 0) return { ...share, outcome: 'failed' }
      return { ...share, outcome: verdict === 'pass' ? 'used' : 'discarded' }
    })
  }

  sources(): Sources {
    return {
      reused: Array.from(this.#reused, ([narHash, bytes]) => ({ narHash, bytes })),
      zeros: this.#zeros,
      wasted: [...this.#peers.values()].reduce((sum, { wasted }) => sum + wasted, 0),
    }
  }

  keep(): BookKept {
    return { peers: [...this.#peers.values()].map(one => ({ ...one })), reused: [...this.sources().reused], zeros: this.#zeros }
  }

  #account(peerId: string): Account {
    let one = this.#peers.get(peerId)
    if (one === undefined) {
      one = { peerId, bytes: 0, wasted: 0, outcome: 'used', detail: null }
      this.#peers.set(peerId, one)
    }
    return one
  }
}
