import { z } from 'zod'
import { MAX_NAME_BYTES, MAX_NAR_SIZE, MAX_REFERENCES, MAX_SIGNATURES } from '../limits.ts'
import { NarHash } from './nar-hash.ts'

/** What is known of an image besides its bytes. */
export interface ImageMetadata {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
  /** Full store path, where the image is one. */
  readonly storePath: string | null
  /** Full store paths that the image refers to, sorted, itself included where it refers to itself. */
  readonly references: readonly string[]
  readonly deriver: string | null
  /** Content address as Nix renders it, for instance `fixed:r:sha256:…`. */
  readonly ca: string | null
  /** Nix signatures, `key name:base64`. */
  readonly signatures: readonly string[]
  readonly name: string | null
  /** BLAKE3 of the encoded manifest, lower case hex. */
  readonly manifestDigest: string | null
}

/** Characters of a name: those of a store path's name. A name is never `.`, `..` or hidden. */
const NAME = /^(?!\.)[0-9a-zA-Z+\-._?=]+$/
const STORE_PATH = /^\/[\x21-\x7e]{1,1024}\/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+\-._?=]{1,211}$/

export const narHashText = z.string().max(128).transform((text, context) => {
  const hash = NarHash.tryParse(text)
  if (hash !== undefined) return hash
  context.addIssue({ code: 'custom', message: 'not a NAR hash' })
  return z.NEVER
})
export const imageName = z.string().max(MAX_NAME_BYTES).regex(NAME, 'a name has 1 to 211 of the characters 0-9 a-z A-Z + - . _ ? =, and no leading dot')
export const storePathText = z.string().max(1300).regex(STORE_PATH, 'not a store path').refine(isNormal, 'a store path without empty, . or .. parts')

/** Whether a path has no part that leads elsewhere: such a path from a peer would name another place than it seems to. */
function isNormal(path: string): boolean {
  return path.split('/').slice(1).every(part => part !== '' && part !== '.' && part !== '..')
}

/** The JSON form of metadata, on the wire and in the catalog: strict, bounded, absent values as null. */
export const metadataSchema = z.strictObject({
  narHash: narHashText,
  narSize: z.int().min(0).max(MAX_NAR_SIZE),
  storePath: storePathText.nullable(),
  references: z.array(storePathText).max(MAX_REFERENCES),
  deriver: storePathText.nullable(),
  ca: z.string().max(512).nullable(),
  signatures: z.array(z.string().max(1024)).max(MAX_SIGNATURES),
  name: imageName.nullable(),
  manifestDigest: z.string().regex(/^[0-9a-f]{64}$/).nullable(),
})
