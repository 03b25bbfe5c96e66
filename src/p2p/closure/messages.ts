import { z } from 'zod'
import { metadataSchema, narHashText, storePathText } from '../../image/metadata.ts'
import { MAX_CLOSURE_PATHS, MAX_PACKED_NARS, MAX_REFERENCES } from '../../limits.ts'

export const CLOSURE_PROTOCOL = '/narvik/closure/1.0.0'

const version = z.literal(1)

export const closureRequest = z.discriminatedUnion('want', [
  z.strictObject({ version, want: z.literal('paths'), narHash: narHashText }),
  z.strictObject({ version, want: z.literal('nars'), narHashes: z.array(narHashText).min(1).max(MAX_PACKED_NARS) }),
])

const refusal = z.strictObject({ version, status: z.enum(['not-found', 'incomplete', 'busy', 'refused']) })

export const pathsReply = z.discriminatedUnion('status', [
  /** `count`: paths that follow. */
  z.strictObject({ version, status: z.literal('ok'), count: z.int().min(1).max(MAX_CLOSURE_PATHS) }),
  refusal,
])

export const narsReply = z.discriminatedUnion('status', [z.strictObject({ version, status: z.literal('ok') }), refusal])

const { narHash, narSize, deriver, ca, signatures, manifestDigest } = metadataSchema.shape

/** One path of a closure on the wire; a reference is the number of a path before it, or its own. */
export const pathMessage = z.strictObject({
  narHash, narSize,
  storePath: storePathText,
  references: z.array(z.int().min(0).max(MAX_CLOSURE_PATHS - 1)).max(MAX_REFERENCES),
  deriver, ca, signatures, manifestDigest,
})
