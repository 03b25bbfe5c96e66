import type { NarHash } from '../image/nar-hash.ts'
import type { ImageEvent, ImageState } from '../image/states.ts'
import type { Evidence } from '../image/verdict.ts'
import type { RefKind } from '../image/ref.ts'
import type { Voucher } from '../image/voucher.ts'

export const SOURCES = ['import', 'fetch'] as const
/** How the image came to this host. */
export type ImageSource = (typeof SOURCES)[number]

export const PLACES = ['content', 'nix-store'] as const
/** Where the verified tree is: under `images/` of the data directory, or at its store path. */
export type ImagePlace = (typeof PLACES)[number]

/** What the catalog knows of one image. */
export interface ImageRow {
  readonly narHash: NarHash
  /** Bytes of the NAR; null until it is known. */
  readonly narSize: number | null
  /** The name that this host gives it. */
  readonly name: string | null
  readonly storePath: string | null
  /** Full store paths, sorted. */
  readonly references: readonly string[]
  readonly deriver: string | null
  readonly ca: string | null
  readonly signatures: readonly string[]
  /** BLAKE3 of the encoded manifest, lower case hex. */
  readonly manifestDigest: string | null
  readonly state: ImageState
  readonly source: ImageSource
  readonly place: ImagePlace
  /** How it was asked for, which decides how many signatures it needs. */
  readonly askedBy: RefKind
  /** Whether it is served to nobody. */
  readonly isPrivate: boolean
  /** The public key, in hex, whose holder published the name that it was fetched by; null where it was had in another way. */
  readonly publisher: string | null
  /** Why store path, references, deriver and content address may be believed; null: they are claims of a peer. */
  readonly vouchedBy: Voucher | null
  /** The newest change time of its tree when it was proven, in microseconds; null where that is not in the Nix store. */
  readonly newestChange: number | null
  /** Why it is in its state; null when it is verified. */
  readonly reason: string | null
  /** For a person, for instance why Nix's metadata is absent. */
  readonly note: string | null
  readonly createdAt: Date
  readonly verifiedAt: Date | null
  /** Since when it is kept whatever else is needed; null: it is not pinned. */
  readonly pinnedAt: Date | null
  /** When it was last served, fetched, exported or named, as far as that was put down. */
  readonly usedAt: Date
  /** When its bytes were last proven; null unless it is verified. */
  readonly provenAt: Date | null
  /** Bytes that its published tree takes on disk; null until it was measured. */
  readonly diskBytes: number | null
  /** Of several that wait, the one with the highest is received first. */
  readonly priority: number
}

/** What Nix registers with a store path besides its bytes; an image has one for each path that has its contents. */
export interface Registration {
  readonly storePath: string
  /** Full store paths, sorted. */
  readonly references: readonly string[]
  readonly deriver: string | null
  readonly ca: string | null
  readonly signatures: readonly string[]
  /** Why all that may be believed; null: it is a claim of a peer. */
  readonly vouchedBy: Voucher | null
}

/** Why an image came into the catalog, where nobody says more than that it was asked for. */
export const ASKED_FOR = 'Asked for'
/** As ASKED_FOR, of an image that was imported; also when its bytes were brought from peers since then. */
export const IMPORTED = 'Imported'

/** What the journal records: the changes of state, and the beginning and the end of the image's row. */
export type JournalEvent = ImageEvent | 'create' | 'remove'

export interface JournalEntry {
  readonly at: Date
  /** null: there was no image. */
  readonly from: ImageState | null
  /** null: there is no image any more. */
  readonly to: ImageState | null
  readonly event: JournalEvent
  readonly reason: string
  readonly evidence: Evidence | null
}
