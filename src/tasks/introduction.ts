import { NarvikError } from '../errors.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { decodeManifest, manifestDigest } from '../image/manifest.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { Layout } from '../nar/layout.ts'
import { fetchMetadata } from '../p2p/meta/client.ts'
import type { Provider } from '../p2p/router.ts'
import type { Claim } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import type { Job } from './jobs.ts'
import { claimRoom } from './space/claim-room.ts'

/** Who said what the image is. */
export interface Word {
  readonly manifestDigest: string
  /** The peer that vouches for the manifest; null where it was passed on by one that has not proven the image itself. */
  readonly voucher: string | null
  /** Whose record in the DHT names the same manifest; null where there is none. */
  readonly recordBy: string | null
}

/** What a provider says of an image before it sends a byte of it. */
export interface Introduction {
  readonly word: Word
  readonly layout: Layout
  readonly chunks: ChunkList
  readonly metadata: ImageMetadata
  /** The encoded manifest. */
  readonly manifest: Uint8Array
}

/**
 * Asks a provider what the image is, and holds what it says against its own manifest and its record in the DHT.
 * @throws NarvikError `peer-failed`, `invalid-manifest`, `too-large`.
 */
export async function introduce({ node }: TaskContext, { narHash, signal }: Job<unknown>, { peerId, record }: Provider): Promise<Introduction> {
  const answer = await fetchMetadata(node, peerId, narHash, { signal })
  if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot ask ${peerId} for ${narHash.toSri()}: it answers ${answer.status}`)
  const { metadata, manifest, verified } = answer
  const digest = manifestDigest(manifest)
  const decoded = decodeManifest(manifest)
  const layout = Layout.describedBy(decoded)
  if (metadata.manifestDigest !== digest) throw disagreement(peerId, `its metadata names manifest ${String(metadata.manifestDigest)}`, `it sends ${digest}`)
  if (metadata.narSize !== layout.narSize) throw disagreement(peerId, `its metadata says ${metadata.narSize} bytes`, `its manifest ${layout.narSize}`)
  if (record !== undefined && record.narSize !== layout.narSize) throw disagreement(peerId, `its DHT record says ${record.narSize} bytes`, `its manifest ${layout.narSize}`)
  const recorded = record?.manifestDigest ?? null
  if (recorded !== null && recorded !== digest) throw disagreement(peerId, `its DHT record names manifest ${recorded}`, `it sends ${digest}`)
  const word = { manifestDigest: digest, voucher: verified ? peerId : null, recordBy: recorded === null ? null : peerId }
  return { word, layout, chunks: decoded.chunks, metadata, manifest }
}

/** What was said of the image, for the verify pipeline. */
export function claimsOf({ manifestDigest: digest, voucher, recordBy }: Word, narHash: NarHash, narSize: number): Claim[] {
  const said = { narHash, narSize, manifestDigest: digest }
  return [
    { by: 'the manifest', ...said },
    ...voucher === null ? [] : [{ by: `peer ${voucher}`, ...said }],
    ...recordBy === null ? [] : [{ by: `the DHT record of ${recordBy}`, ...said }],
  ]
}

/** Claims the room that the image will take, and writes down what it is said to be; what was there of it before goes. */
export async function prepare(context: TaskContext, job: Job<unknown>, { metadata, manifest, layout, chunks }: Introduction): Promise<void> {
  const { catalog, content } = context
  await claimRoom(context, job, { layout, chunks })
  const { narHash } = metadata
  catalog.describe(narHash, { ...metadata, name: catalog.get(narHash)?.name ?? null }, manifest)
  await content.discard(narHash)
}

function disagreement(peerId: string, one: string, other: string): NarvikError {
  return new NarvikError('invalid-manifest', `Cannot take the manifest of ${peerId}: found that ${one} and ${other}, needed them to agree`)
}
