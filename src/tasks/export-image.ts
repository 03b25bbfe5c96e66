import { fromSystemError, NarvikError } from '../errors.ts'
import type { Ref } from '../image/ref.ts'
import { copyTree } from '../nar/copy.ts'
import { removeTree } from '../nar/remove.ts'
import { openTree } from '../nar/seal.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree } from '../verify/pipeline.ts'
import type { TaskContext } from './context.ts'
import { checkExportable } from './guarded-paths.ts'
import type { Progress } from './jobs.ts'
import { requireImage } from './refs.ts'

export interface ExportRequest {
  readonly ref: Ref
  /** Absolute path that does not exist yet. */
  readonly dest: string
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

/**
 * Copies a verified tree out, and proves the copy: what leaves is as exact as what arrived. A copy that fails is
 * removed again.
 */
export async function exportImage(context: TaskContext, request: ExportRequest): Promise<string> {
  const { dest } = request
  const row = requireImage(context.catalog, request.ref)
  const source = context.content.visiblePath(row)
  if (source === null) throw new NarvikError('conflict', `Cannot export ${row.narHash.toSri()}: found it ${row.state}, needed it verified`)
  await checkExportable(context.settings.guarded, dest)
  using _held = context.uses.hold(row.narHash)
  const options = request.signal === undefined ? {} : { signal: request.signal }
  // copyTree refuses a destination that exists, so that what is removed on failure is only ever our own.
  await copyTree(source, dest, { ...options, onProgress: bytes => { report(request, row, 'copying', bytes) } })
  try {
    const { verdict } = await verifyTree({ tree: dest, expected: row.narHash, claims: [] }, { ...options, onProgress: bytes => { report(request, row, 'verifying', bytes) } })
    if (verdict.verdict === 'fail') throw damaged(row, verdict.reason)
    await openTree(dest, options)
    return dest
  } catch (error) {
    await removeTree(dest)
    throw fromSystemError(error, `export to ${dest}`)
  }
}

function damaged({ narHash }: ImageRow, reason: string | null): NarvikError {
  return new NarvikError('verification-failed', `Cannot export ${narHash.toSri()}: ${reason ?? 'the copy is not the image'}`, {
    hint: 'Run `narvik verify` on it: its tree, or the destination, is damaged',
  })
}

function report({ onProgress }: ExportRequest, { narHash, narSize }: ImageRow, phase: Progress['phase'], bytes: number): void {
  onProgress?.({ narHash: narHash.toSri(), phase, bytes, totalBytes: narSize, bytesPerSecond: 0, peers: [] })
}
