import type { Listing } from '../image/listing.ts'
import type { FileStamps } from './file-stamps.ts'
import { runTask } from './thread/pool.ts'

/**
 * Makes the tree at `root` as it would be in a Nix store: files 0444 or 0555, directories 0555, all times 1, everything durable. The root itself
 * gets 0755 where it is a directory, so that it can still be moved. Symlinks are not followed.
 * @throws NarvikError `unsupported-file`, `unreadable`, `disk-full`, `io-error`.
 */
export async function sealTree(root: string, { signal, stamped }: SealOptions = {}): Promise<{ isAsStamped: boolean }> {
  const expected = stamped === undefined ? undefined : { columns: stamped.listing.columns, stamps: stamped.stamps.columns }
  const { isAsStamped = false } = await runTask({ task: 'seal', root, stamped: expected }, { signal })
  return { isAsStamped }
}

export interface SealOptions {
  readonly signal?: AbortSignal
  /** What the files were when they were written last: the answer says whether each of them was that still, just before it was sealed. */
  readonly stamped?: { readonly listing: Listing, readonly stamps: FileStamps }
}

/**
 * Makes the tree at `root` as `nix-store --restore` leaves one: files 0644 or 0755, directories 0755; for a copy that is given away. The
 * root comes last, so that nobody else sees a part of it. Symlinks are not followed.
 * @throws NarvikError as `sealTree`.
 */
export async function openTree(root: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await runTask({ task: 'open', root }, { signal })
}
