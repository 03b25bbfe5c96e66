import { scanTree } from './hash-tree.ts'
import { Layout } from './layout.ts'
import { readRange } from './read-range.ts'

/**
 * The NAR of the tree at `path`, as `nix-store --dump` writes it.
 * @throws NarvikError as `scanTree` and `readRange`.
 */
export async function* dumpTree(path: string, options: { signal?: AbortSignal } = {}): AsyncGenerator<Buffer, void, undefined> {
  const layout = Layout.of(await scanTree(path, options))
  yield* readRange(path, layout, 0, layout.narSize, options)
}
