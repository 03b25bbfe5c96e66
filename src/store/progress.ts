import { open } from 'node:fs/promises'
import { fromSystemError, NarvikError } from '../errors.ts'
import { MAX_NAR_SIZE, MAX_PROGRESS_BYTES } from '../limits.ts'
import { isAbsence, writeFileDurably } from './durable.ts'

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue | undefined }

/** How far an image was received, and whatever else its receiver wants to find again. */
export interface Progress {
  /** Bytes of the NAR, from its start, that are on disk. */
  readonly offset: number
  readonly [key: string]: JsonValue | undefined
}

const VERSION = 1

/** Undefined where nothing was written, or nothing that can be relied on: the image is then received from its start. */
export async function readProgressFile(file: string): Promise<Progress | undefined> {
  try {
    const text = await readBounded(file)
    return text === undefined ? undefined : parse(text)
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw fromSystemError(error, `read ${file}`)
  }
}

/** Durable when it resolves; a crash leaves what was there before. */
export async function writeProgressFile(file: string, progress: Progress): Promise<void> {
  if (!isOffset(progress.offset)) {
    throw new NarvikError('invalid-argument', `Cannot write ${file}: found the offset ${String(progress.offset)}, needed 0 to ${MAX_NAR_SIZE}`)
  }
  const text = JSON.stringify({ version: VERSION, ...progress })
  if (text.length > MAX_PROGRESS_BYTES) {
    throw new NarvikError('too-large', `Cannot write ${file}: found ${text.length} bytes, needed at most ${MAX_PROGRESS_BYTES}`)
  }
  try {
    await writeFileDurably(file, text)
  } catch (error) {
    throw fromSystemError(error, `write ${file}`)
  }
}

async function readBounded(file: string): Promise<string | undefined> {
  const handle = await open(file, 'r')
  try {
    const { size } = await handle.stat()
    return size > MAX_PROGRESS_BYTES ? undefined : await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

function parse(text: string): Progress | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return undefined
    const { version, ...progress } = value as Record<string, JsonValue>
    return version === VERSION && isOffset(progress['offset']) ? { ...progress, offset: progress['offset'] } : undefined
  } catch {
    return undefined
  }
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= MAX_NAR_SIZE
}
