import { MAX_NAR_NAME_BYTES, MAX_NAR_TARGET_BYTES } from '../limits.ts'

export type EntryKind = 'directory' | 'regular' | 'symlink'

/** Why `name` can't be the name of a directory's entry, as `found …, needed …`; undefined where it can. */
export function nameProblem(name: Uint8Array): string | undefined {
  if (name.length === 0) return 'found an empty name, needed at least one byte'
  if (name.length > MAX_NAR_NAME_BYTES) return `found a name of ${name.length} bytes, needed at most ${MAX_NAR_NAME_BYTES}`
  if (name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT))) return `found the name ${showBytes(name)}, needed one that is not . or ..`
  if (name.includes(SLASH)) return `found the name ${showBytes(name)}, needed one without /`
  if (name.includes(0)) return `found the name ${showBytes(name)}, needed one without NUL`
  return undefined
}

/** Why `target` can't be the target of a symlink, as `found …, needed …`; undefined where it can. */
export function targetProblem(target: Uint8Array): string | undefined {
  if (target.length === 0) return 'found an empty symlink target, needed at least one byte'
  if (target.length > MAX_NAR_TARGET_BYTES) return `found a symlink target of ${target.length} bytes, needed at most ${MAX_NAR_TARGET_BYTES}`
  if (target.includes(0)) return 'found a symlink target with NUL, needed one without'
  return undefined
}

/** A name, path or tag for a message: as it is where it is printable UTF-8, else with the other bytes as `\xNN`. */
export function showBytes(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, SHOWN_BYTES)).toString('latin1')
  const end = bytes.length > SHOWN_BYTES ? '…' : ''
  return `${decodeUtf8(bytes.subarray(0, SHOWN_BYTES)) ?? escapeBytes(text)}${end}`
}

const DOT = 0x2e
const SLASH = 0x2f
const SHOWN_BYTES = 1024
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    const text = utf8.decode(bytes)
    return /\p{C}/u.test(text) ? undefined : text
  } catch {
    return undefined
  }
}

function escapeBytes(latin1: string): string {
  return latin1.replace(/[^\x20-\x7e]/g, byte => `\\x${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)
}
