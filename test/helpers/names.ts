import type { NarHash } from '../../src/image/nar-hash.ts'
import { type NameRecord, writeNameRecord } from '../../src/image/name-record.ts'
import { formatPublicKey, generateSecretKey, publicKeyOf, signBytes, type SecretKey } from '../../src/nix/signature.ts'

/** Somebody who publishes names. */
export interface Publisher {
  readonly key: SecretKey
  /** As Nix writes it. */
  readonly publicKey: string
  /** Signs a record of a name, now and for an hour, unless `fields` say otherwise. */
  sign(name: string, narHash: NarHash, fields?: Partial<NameRecord>): Uint8Array
}

export function makePublisher(keyName = 'fleet-1'): Publisher {
  const key = generateSecretKey(keyName)
  const publicKey = formatPublicKey(publicKeyOf(key))
  return {
    key,
    publicKey,
    sign: (name, narHash, fields = {}) => {
      const now = Date.now()
      const record: NameRecord = { version: 1, publisher: publicKey, name, narHash, seq: now, publishedAt: now, expires: now + 3_600_000, ...fields }
      return writeNameRecord(record, message => signBytes(message, key))
    },
  }
}
