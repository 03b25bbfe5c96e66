import { runTask } from './thread/pool.ts'

/**
 * Copies what a NAR has of the tree at `from` to `to`, where nothing may be. Blocks are shared where the file system can do that; where it can't,
 * sparse files stay sparse. `onProgress` is told the bytes of contents that are copied. On failure nothing is left at `to`. Only its owner can read the copy.
 * @throws NarvikError as `scanTree`, and `conflict` where something is at `to`, `changed-while-reading`, `disk-full`.
 */
export async function copyTree(from: string, to: string, options: { signal?: AbortSignal, onProgress?: (bytesSoFar: number) => void } = {}): Promise<void> {
  await runTask({ task: 'copy', root: from, to }, options)
}
