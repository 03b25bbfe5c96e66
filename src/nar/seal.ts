import { runTask } from './thread/pool.ts'

/**
 * Makes the tree at `root` as it would be in a Nix store: files 0444 or 0555, directories 0555, all times 1, everything durable. The root itself
 * gets 0755 where it is a directory, so that it can still be moved. Symlinks are not followed.
 * @throws NarvikError `unsupported-file`, `unreadable`, `disk-full`, `io-error`.
 */
export async function sealTree(root: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await runTask({ task: 'seal', root }, { signal })
}
