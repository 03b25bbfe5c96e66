import { runTask } from './thread/pool.ts'

/**
 * Makes the tree at `root` as it would be in a Nix store: files 0444 or 0555, directories 0555, all times 1, everything durable. The root itself
 * gets 0755 where it is a directory, so that it can still be moved. Symlinks are not followed.
 * @throws NarvikError `unsupported-file`, `unreadable`, `disk-full`, `io-error`.
 */
export async function sealTree(root: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await runTask({ task: 'seal', root }, { signal })
}

/**
 * Makes the tree at `root` as `nix-store --restore` leaves one: files 0644 or 0755, directories 0755; for a copy that is given away. The
 * root comes last, so that nobody else sees a part of it. Symlinks are not followed.
 * @throws NarvikError as `sealTree`.
 */
export async function openTree(root: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await runTask({ task: 'open', root }, { signal })
}
