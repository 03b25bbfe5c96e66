import type { ImageMetadata } from '../image/metadata.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { MAX_SIGNATURES } from '../limits.ts'
import type { ImageRow, Registration } from './image-row.ts'
import { toRegistration } from './rows.ts'
import type { Statements } from './statements.ts'

/** Every store path that the image is known under, the one of its row first. */
export function registrationsOf(sql: Statements, { narHash, storePath, references, deriver, ca, signatures, vouchedBy }: ImageRow): Registration[] {
  const first = storePath === null ? [] : [{ storePath, references, deriver, ca, signatures, vouchedBy }]
  return [...first, ...sql.otherPaths.all(narHash.bytes).map(toRegistration).filter(other => other.storePath !== storePath)]
}

/** Puts down that an image is at a store path, as far as that is worth more than what is known; within a transaction. */
export function register(sql: Statements, row: ImageRow, registration: Registration): void {
  const isSame = row.storePath === registration.storePath
  if (isSame && !outranks(registration, row)) return
  if (isSame || (row.place === 'content' && row.vouchedBy === null && registration.vouchedBy !== null)) putFirst(sql, row, registration)
  else putOther(sql, row.narHash, registration)
}

/** Puts references and signatures in the place of those that the image has. */
export function putLists(sql: Statements, narHash: NarHash, { references, signatures }: Pick<ImageMetadata, 'references' | 'signatures'>): void {
  const key = narHash.bytes
  sql.dropReferences.run(key)
  for (const reference of new Set(references)) sql.addReference.run(key, reference)
  sql.dropSignatures.run(key)
  for (const [position, signature] of signatures.entries()) sql.addSignature.run(key, position, signature)
}

/** Whether what is said of a path is worth more than what was said of it before. */
function outranks({ vouchedBy }: Pick<Registration, 'vouchedBy'>, before: Pick<Registration, 'vouchedBy'>): boolean {
  return vouchedBy === 'nix' || (vouchedBy !== null && before.vouchedBy === null)
}

/** Makes a store path that of the row; the one before stays as a further one. Signatures of the same path are kept. */
function putFirst(sql: Statements, row: ImageRow, { storePath, references, deriver, ca, signatures, vouchedBy }: Registration): void {
  const { narHash } = row
  if (row.storePath !== null && row.storePath !== storePath) putOther(sql, narHash, { ...row, storePath: row.storePath })
  sql.dropOtherPath.run({ narHash: narHash.bytes, storePath })
  sql.register.run({ narHash: narHash.bytes, storePath, deriver, ca, vouchedBy })
  const kept = row.storePath === storePath ? row.signatures : []
  putLists(sql, narHash, { references, signatures: [...new Set([...signatures, ...kept])].slice(0, MAX_SIGNATURES) })
}

function putOther(sql: Statements, narHash: NarHash, { storePath, references, deriver, ca, signatures, vouchedBy }: Registration): void {
  sql.addOtherPath.run({
    narHash: narHash.bytes, storePath, deriver, ca, references: JSON.stringify([...new Set(references)].sort()), signatures: JSON.stringify(signatures), vouchedBy,
  })
}
