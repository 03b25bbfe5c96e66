import { createHmac } from 'node:crypto'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import type { PeerId, PrivateKey } from '@libp2p/interface'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { NarvikError } from '../../errors.ts'
import type { FleetSecrets } from './keys.ts'

/** Who speaks: proofs of the two ends differ in it, so that none can be sent back. */
export type Role = 'dialler' | 'answerer'

const KEY_BYTES = 32
const SIGNATURE_BYTES = 64
/** Bytes of a proof: an Ed25519 public key and a signature by it. */
export const PROOF_BYTES = KEY_BYTES + SIGNATURE_BYTES

/** What a proof is said of. */
export interface ProofSubject {
  readonly role: Role
  /** What only this channel, and only hosts with its fleet key, have: see `bindingOf`. */
  readonly binding: Uint8Array
  /** The dialler names the host that it speaks to; nobody has spoken to the answerer yet. */
  readonly to?: PeerId | undefined
}

/** Ties the channel, known by what TLS exports of it, to the fleet key. */
export function bindingOf({ binding }: FleetSecrets, exported: Uint8Array): Uint8Array {
  return createHmac('sha256', binding).update(exported).digest()
}

/** Proves to the other end that this host has the private key. */
export async function prove(privateKey: PrivateKey, subject: ProofSubject): Promise<Uint8Array> {
  return Buffer.concat([privateKey.publicKey.raw, await privateKey.sign(textOf(subject))], PROOF_BYTES)
}

/**
 * Who the other end is.
 * @throws NarvikError `peer-failed` where the proof is wrong, or of another channel, role, fleet or addressee.
 */
export async function checkProof(proof: Uint8Array, subject: ProofSubject): Promise<PeerId> {
  // Of another length they would be taken for another kind of key.
  if (proof.length !== PROOF_BYTES) throw wrongProof(subject)
  const publicKey = publicKeyFromRaw(proof.subarray(0, KEY_BYTES))
  if (!await publicKey.verify(textOf(subject), proof.subarray(KEY_BYTES))) throw wrongProof(subject)
  return peerIdFromPublicKey(publicKey)
}

function wrongProof({ role }: ProofSubject): NarvikError {
  return new NarvikError('peer-failed', `Cannot trust the ${role}: found a wrong proof of its peer id, needed a right one`)
}

/** Every part has a fixed length but the last, so that no two subjects have one text. */
function textOf({ role, binding, to }: ProofSubject): Uint8Array {
  return Buffer.concat([Buffer.from('narvik tls proof 1\0'), Buffer.from([role === 'dialler' ? 1 : 2]), binding, to?.toMultihash().bytes ?? Buffer.alloc(0)])
}
