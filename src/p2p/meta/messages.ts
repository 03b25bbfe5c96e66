import { z } from 'zod'
import { narHashText } from '../../image/metadata.ts'
import { MAX_MANIFEST_BYTES, MAX_METADATA_BYTES } from '../../limits.ts'

export const META_PROTOCOL = '/narvik/meta/1.0.0'

export const metaRequest = z.strictObject({
  version: z.literal(1),
  narHash: narHashText,
})

export const metaReply = z.discriminatedUnion('status', [
  z.strictObject({
    version: z.literal(1),
    status: z.literal('ok'),
    /** Whether the holder has proven the image; one that still receives it passes on what it was told. */
    verified: z.boolean(),
    /** Bytes of the metadata's JSON, the first part of the body. */
    metadataLength: z.int().min(2).max(MAX_METADATA_BYTES),
    /** Bytes of the manifest, the second part of the body. */
    manifestLength: z.int().min(0).max(MAX_MANIFEST_BYTES),
  }),
  z.strictObject({
    version: z.literal(1),
    status: z.enum(['not-found', 'busy', 'refused']),
  }),
])
