import { z } from 'zod'
import { narHashText } from '../../image/metadata.ts'
import { MAX_NAR_SIZE } from '../../limits.ts'

export const NAR_PROTOCOL = '/narvik/nar/1.0.0'

export const narRequest = z.strictObject({
  version: z.literal(1),
  narHash: narHashText,
  /** First byte of the NAR that is asked for. */
  offset: z.int().min(0).max(MAX_NAR_SIZE),
  /** Bytes that are asked for. */
  length: z.int().min(0).max(MAX_NAR_SIZE),
})

export const narReply = z.discriminatedUnion('status', [
  z.strictObject({
    version: z.literal(1),
    status: z.literal('ok'),
    /** Bytes of the body: those asked for, never fewer. */
    length: z.int().min(0).max(MAX_NAR_SIZE),
  }),
  z.strictObject({
    version: z.literal(1),
    status: z.enum(['not-found', 'busy', 'refused']),
  }),
])
