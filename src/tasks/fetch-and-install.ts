import { messageOf } from '../errors.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'
import { fetchClosure } from './fetch-closure.ts'
import { fetchImage, type FetchRequest } from './fetch-image.ts'
import { installImage, noteInstall } from './install-image.ts'

export interface FetchAndInstallRequest extends FetchRequest {
  /** Whether everything that it refers to is meant as well. */
  readonly closure?: boolean | undefined
  /** Whether it is to be in the Nix store at the end. */
  readonly install?: boolean | undefined
}

/** Brings an image, and registers it in the Nix store where that is asked for. Where Nix refuses, the image is verified all the same. */
export async function fetchAndInstall(context: TaskContext, request: FetchAndInstallRequest): Promise<ImageRow> {
  const { closure, install, signal, onProgress } = request
  const row = await (closure === true ? fetchClosure : fetchImage)(context, request)
  if (install !== true) return row
  const { narHash } = row
  try {
    const ref = request.ref.kind === 'store-path' ? request.ref : { kind: 'nar-hash', narHash } as const
    await installImage(context, { ref, closure, ...signal && { signal }, ...onProgress && { onProgress } })
  } catch (error) {
    if (signal?.aborted !== true && context.catalog.get(narHash) !== undefined) noteInstall(context, narHash, messageOf(error))
    throw error
  }
  return context.catalog.get(narHash) ?? row
}
