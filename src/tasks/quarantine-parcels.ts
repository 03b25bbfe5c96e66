import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { want, type Parcel } from './receive-packed.ts'

/**
 * Makes trees that were received, and whose bytes are durable, the quarantined images that they are said to be: few renames are waited
 * for, and one transaction is for all. Answers with their rows, in their order.
 */
export async function quarantineParcels({ catalog, content }: Pick<TaskContext, 'catalog' | 'content'>, parcels: readonly Parcel[]): Promise<ImageRow[]> {
  // The bytes of an earlier try go first: of what was rejected not one is used again.
  for (const { metadata: { narHash } } of parcels) await content.discardQuarantine(narHash)
  await content.adoptAll(parcels.map(({ stage, metadata: { narHash } }) => ({ stage, narHash })))
  return catalog.together('record what was received', () => parcels.map(({ metadata, manifest, peerId }) => {
    want(catalog, metadata, manifest)
    catalog.transition(metadata.narHash, 'start', { reason: `receiving from ${peerId}, packed with others` })
    return catalog.transition(metadata.narHash, 'complete', { reason: `received from ${peerId}` })
  }))
}
