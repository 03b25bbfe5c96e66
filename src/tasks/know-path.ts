import type { ClosurePath } from '../p2p/protocol.ts'
import type { ImageRow, Registration } from '../store/image-row.ts'
import { judgeTrust } from '../verify/trust.ts'
import type { TaskContext } from './context.ts'
import { lookUp } from './refs.ts'
import { trustQuestion } from './trust.ts'

/** The store paths that a path of a closure refers to, sorted. */
export function referencesOf(paths: readonly ClosurePath[], { references }: ClosurePath): string[] {
  return references.map(reference => paths[reference]?.storePath ?? '').sort()
}

/**
 * Whether a path of a closure is verified here. If so, it is put down that its image is at this path as well, as far as a peer's word goes:
 * two paths with the same contents are one image.
 */
export async function knowPath(context: TaskContext, paths: readonly ClosurePath[], { number, signal }: { number: number, signal: AbortSignal }): Promise<boolean> {
  const { catalog } = context
  const path = paths[number]
  if (path === undefined) return false
  const { storePath, deriver, ca, signatures } = path
  const row = catalog.get(path.narHash)
  // This host may have another build of the path; but what was asked for by its hash must be just that.
  if (row?.state !== 'verified') return number !== paths.length - 1 && lookUp(catalog, { kind: 'store-path', storePath })?.state === 'verified'
  if (storePath === row.storePath) return true
  const known = catalog.registrations(row.narHash).find(one => one.storePath === storePath)
  if (known !== undefined && known.vouchedBy !== null) return true
  const registration = { storePath, deriver, ca, signatures, references: referencesOf(paths, path) }
  const vouchedBy = await judge(context, row, registration, signal)
  // A claim is not replaced by another one; nor is anything put down of an image that went meanwhile.
  if ((known === undefined || vouchedBy !== null) && catalog.get(row.narHash) !== undefined) catalog.addStorePath(row.narHash, { ...registration, vouchedBy })
  return true
}

/** Who vouches for a further path of a verified image: a peer says so, and what was measured of the image is known. */
async function judge({ settings, content }: TaskContext, row: ImageRow, said: Omit<Registration, 'vouchedBy'>, signal: AbortSignal): Promise<Registration['vouchedBy']> {
  const tree = content.visiblePath(row)
  if (tree === null || row.narSize === null) return null
  const question = trustQuestion(settings.trust, said, { askedBy: 'nar-hash', local: false })
  const { vouchedBy } = await judgeTrust(question, { tree, narHash: row.narHash, narSize: row.narSize }, { signal })
  return vouchedBy
}
