import { createHash } from 'node:crypto'
import type { ImageMetadata } from '../../src/image/metadata.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { ImageEvent, ImageState } from '../../src/image/states.ts'

/** A NAR hash that is as good as any other. */
export function someHash(seed: string | number): NarHash {
  return NarHash.fromBytes(createHash('sha256').update(String(seed)).digest())
}

/** What is known of an image, as plain as it can be. */
export function someMetadata(narHash: NarHash, extra: Partial<ImageMetadata> = {}): ImageMetadata {
  return { narHash, narSize: 4096, storePath: null, references: [], deriver: null, ca: null, signatures: [], name: null, manifestDigest: null, ...extra }
}

/** A store path that is as good as any other. */
export function someStorePath(seed: string | number, store = '/nix/store'): string {
  return `${store}/${someHash(seed).toNix32().slice(0, 32)}-image-${seed}`
}

/** The events that lead a new image to each state. */
export const WAY_TO: Readonly<Record<ImageState, readonly ImageEvent[]>> = {
  wanted: [],
  receiving: ['start'],
  quarantined: ['start', 'complete'],
  verified: ['start', 'complete', 'pass'],
  rejected: ['start', 'complete', 'fail'],
}
