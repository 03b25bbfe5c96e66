import type { NarHash } from './nar-hash.ts'

/** What Nix knows of a valid store path. */
export interface NixPathInfo {
  /** Full store path, as are `references` and `deriver`. */
  readonly path: string
  readonly narHash: NarHash
  /** Bytes. */
  readonly narSize: number
  /** Sorted; with the path itself where it refers to itself. */
  readonly references: string[]
  readonly deriver: string | null
  /** `fixed:r:sha256:<nix32>` and the like, whatever the form in which Nix printed it. */
  readonly ca: string | null
  /** `key name:base64`. */
  readonly signatures: string[]
  /** Seconds since 1970. */
  readonly registrationTime: number | null
  /** Built on this machine, so trusted by it. */
  readonly ultimate: boolean
}
