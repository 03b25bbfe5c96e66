import { runTask } from './thread/pool.ts'

/**
 * Removes the tree at `path`, also a sealed one and without being root; nothing there is well. A symlink is removed, not followed.
 * @throws NarvikError `unreadable` where it isn't allowed, `io-error`.
 */
export async function removeTree(path: string): Promise<void> {
  await runTask({ task: 'remove', root: path }, {})
}
