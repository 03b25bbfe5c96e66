import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import type { FleetKeys } from '../fleet.ts'

/** What TLS uses of one fleet key. Made for each handshake: none of it is kept. */
export interface FleetSecrets {
  /** The pre-shared key of the handshake. */
  readonly psk: Buffer
  /** Marks the names under which a dialler speaks of the key. */
  readonly hint: Buffer
  /** Binds the proofs of identity to the key. */
  readonly binding: Buffer
}

/** Without a fleet the secrets are those of the empty key, which everybody knows: the handshake is the same one, and lets in everybody. */
export function secretsOf(fleetKey: Uint8Array | undefined): FleetSecrets {
  const derive = (purpose: string): Buffer => Buffer.from(hkdfSync('sha256', fleetKey ?? Buffer.alloc(0), Buffer.alloc(0), `narvik tls ${purpose} 1`, SECRET_BYTES))
  return { psk: derive('psk'), hint: derive('hint'), binding: derive('binding') }
}

/** A name for the key that whoever has the key understands; to all others each one is as good as random. */
export function hintFor({ hint }: FleetSecrets): string {
  const nonce = randomBytes(HINT_BYTES)
  return Buffer.concat([nonce, markOf(hint, nonce)]).toString('base64url')
}

/** The secrets of the accepted key that a dialler speaks of. */
export function secretsOfHint({ accept }: FleetKeys, text: string): FleetSecrets | undefined {
  const bytes = Buffer.from(text, 'base64url')
  if (bytes.length !== 2 * HINT_BYTES) return undefined
  const nonce = bytes.subarray(0, HINT_BYTES)
  const candidates = accept.length === 0 ? [undefined] : accept
  return candidates.map(secretsOf).find(({ hint }) => timingSafeEqual(markOf(hint, nonce), bytes.subarray(HINT_BYTES)))
}

const SECRET_BYTES = 32
const HINT_BYTES = 16

function markOf(hint: Buffer, nonce: Buffer): Buffer {
  return createHmac('sha256', hint).update(nonce).digest().subarray(0, HINT_BYTES)
}
