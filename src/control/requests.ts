import { z } from 'zod'
import { imageName } from '../image/metadata.ts'
import { NarHash } from '../image/nar-hash.ts'
import { MAX_REF_CHARS, tryParseRef, type Ref } from '../image/ref.ts'
import { MAX_RECORD_BYTES } from '../limits.ts'
import { count } from './fields.ts'

/** A reference in a request; arrives parsed. */
export const refSchema = z.string().max(MAX_REF_CHARS).transform((text, context): Ref => {
  const ref = tryParseRef(text)
  if (ref !== undefined) return ref
  context.addIssue({ code: 'custom', message: 'a NAR hash, a store path or a name' })
  return z.NEVER
})

/** A path on this host, as the daemon opens it: absolute, because the daemon has another working directory. */
export const hostPath = z.string().max(4096)
  .refine(path => path.startsWith('/'), 'an absolute path')
  .refine(path => !path.includes('\0'), 'a path without NUL')

/** A name that is given to an image; one that reads as a NAR hash could never be asked for. */
export const newName = z.string().refine(
  name => imageName.safeParse(name).success && NarHash.tryParse(name) === undefined,
  'a name of 1 to 211 of the characters 0-9 a-z A-Z + - . _ ? =, without a leading dot, that is no NAR hash',
)

/** The highest priority of a fetch, and the lowest below 0. */
export const MAX_PRIORITY = 1000

export const importRequest = z.strictObject({ path: hostPath, name: z.exactOptional(newName), closure: z.exactOptional(z.boolean()), private: z.exactOptional(z.boolean()) })
export const privateRequest = z.strictObject({ ref: refSchema, private: z.boolean() })
export const fetchRequest = z.strictObject({
  ref: refSchema,
  name: z.exactOptional(newName),
  closure: z.exactOptional(z.boolean()),
  install: z.exactOptional(z.boolean()),
  timeoutSeconds: z.exactOptional(z.number().positive().max(7 * 24 * 3600)),
  priority: z.exactOptional(z.int().min(-MAX_PRIORITY).max(MAX_PRIORITY)),
})
export const moveRequest = z.strictObject({ ref: refSchema, position: z.int().min(1).max(1_000_000) })
export const verifyRequest = z.strictObject({ ref: z.exactOptional(refSchema), all: z.exactOptional(z.literal(true)), repair: z.exactOptional(z.literal(true)) })
  .refine(({ ref, all }) => (ref === undefined) !== (all === undefined), 'either ref or all')
export const exportRequest = z.strictObject({ ref: refSchema, dest: hostPath })
export const installRequest = z.strictObject({ ref: refSchema, closure: z.exactOptional(z.boolean()), checkSignatures: z.exactOptional(z.boolean()) })
export const refRequest = z.strictObject({ ref: refSchema })
export const gcRequest = z.strictObject({ freeBytes: z.exactOptional(count), dryRun: z.exactOptional(z.boolean()) })
export const refParams = z.strictObject({ ref: refSchema })
export const noFields = z.strictObject({})

export const publishRequest = z.strictObject({
  /** A signed record, as docs/TRUST.md has it; base64. */
  record: z.base64().max(2 * MAX_RECORD_BYTES),
})

/** A peer's name in a request: base58, as every command prints it. */
export const peerIdParams = z.strictObject({ peerId: z.string().regex(/^[1-9A-HJ-NP-Za-km-z]{46,64}$/, 'a peer id, such as 12D3KooW…') })
