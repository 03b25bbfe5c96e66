import { runTask } from './thread/pool.ts'

/**
 * Makes the tree of a NAR that is in memory at `dest`, where nothing may be, in another thread: restored and sealed, as `restoreNar` and
 * `sealTree` do it. The NAR's memory is given away, if it is a buffer of its own. On failure nothing is left at `dest`.
 * @throws NarvikError as `restoreNar` and `sealTree`; the reason of `signal` when it is aborted.
 */
export async function unpackNar(nar: Uint8Array<ArrayBuffer>, dest: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await runTask({ task: 'unpack', root: dest, nar }, { signal })
}
