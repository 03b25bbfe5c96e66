import { closeSync, constants, existsSync, openSync } from 'node:fs'
import { resolve } from 'node:path'
import { fromSystemError, messageOf, NarvikError, systemCode } from '../errors.ts'
import type { Listing } from '../image/listing.ts'

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants

/** To open what should be a regular file: never through a symlink, and without waiting where it turns out to be a fifo. */
export const OPEN_FILE = O_RDONLY | O_NOFOLLOW | O_NONBLOCK
/** To open what should be a directory: never through a symlink. */
export const OPEN_DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW

/**
 * The path of an entry of an open directory. It leads there whatever becomes of the directories above, so that nobody can swap one of
 * them for a symlink on the way, and it stays short however deep the tree is. Needs Linux's /proc; Node has no `openat`.
 */
export function pathIn(directory: number, name: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${directory}/`), name])
}

/** It does not go away. */
let hasProc = false

/** @throws NarvikError `io-error` where `pathIn` can't work. */
export function checkProc(): void {
  hasProc ||= existsSync('/proc/self/fd')
  if (hasProc) return
  throw new NarvikError('io-error', 'Cannot read or write a tree: found no /proc/self/fd, needed the /proc file system mounted')
}

/**
 * What to throw for a failure at a file of a tree: a NarvikError for a system error, anything else as it is. `action` completes `Cannot …` and
 * names the file as the user knows it; the path in Node's own message would be one through /proc.
 */
export function treeError(error: unknown, action: string): unknown {
  const code = systemCode(error)
  if (code === undefined || error instanceof NarvikError) return error
  const plain = messageOf(error).replace(/, \w+ '[^]*$/, '')
  const syscall = error instanceof Error && 'syscall' in error ? { syscall: error.syscall } : {}
  return fromSystemError(Object.assign(new Error(plain, { cause: error }), { code, ...syscall }), action)
}

/** As `treeError`, for a file that was there with its right kind a moment ago. */
export function changedError(error: unknown, action: string): unknown {
  const code = systemCode(error)
  if (code === undefined || !GONE.has(code)) return treeError(error, action)
  return new NarvikError('changed-while-reading', `Cannot ${action}: found it gone or replaced (${code}), needed the tree unchanged`, { cause: error })
}

const GONE = new Set(['ENOENT', 'ELOOP', 'ENOTDIR', 'EISDIR', 'ENXIO', 'EINVAL', 'ESTALE'])

/**
 * Goes about the tree of a listing with the directories on the way to the last entry held open, at most one per level.
 * In the listing's order each directory is opened once.
 */
export class TreeCursor {
  readonly root: string
  readonly #listing: Listing
  readonly #open: { entry: number, fd: number }[] = []

  constructor(root: string, listing: Listing) {
    checkProc()
    // A slash at the end would follow a symlink.
    this.root = resolve(root)
    this.#listing = listing
  }

  /** The path of `entry`, through its directory; good until the next call. Throws a system error where a directory can't be opened. */
  path(entry: number): string | Buffer {
    return entry === 0 ? this.root : pathIn(this.enter(this.#listing.parent(entry)), this.#listing.name(entry))
  }

  /** The file descriptor of a directory, open until the next call. */
  enter(directory: number): number {
    let innermost = this.#open.at(-1)
    while (innermost !== undefined && !this.#contains(innermost.entry, directory)) {
      this.#open.pop()
      closeSync(innermost.fd)
      innermost = this.#open.at(-1)
    }
    if (innermost?.entry === directory) return innermost.fd
    const fd = openSync(this.path(directory), OPEN_DIRECTORY)
    this.#open.push({ entry: directory, fd })
    return fd
  }

  /** The path of `entry` for a message. */
  show(entry: number): string {
    return entry === 0 ? this.root : `${this.root}/${this.#listing.show(entry)}`
  }

  close(): void {
    for (const { fd } of this.#open.splice(0)) closeSync(fd)
  }

  #contains(outer: number, inner: number): boolean {
    return inner >= outer && inner < this.#listing.end(outer)
  }
}
