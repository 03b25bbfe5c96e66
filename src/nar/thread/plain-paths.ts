import type { Listing } from '../../image/listing.ts'
import { TreeCursor } from '../directory.ts'

/** Bytes of a path, the kernel's limit being 4096, above which a tree is gone about through its directories' descriptors. */
const MAX_PATH_BYTES = 3800

/** A path of bytes, one character for each, as Node takes it. */
export function toPath(latin1: string): string | Buffer {
  return isAscii(latin1) ? latin1 : Buffer.from(latin1, 'latin1')
}

/** Whether `latin1` is short enough to be used as a path. */
export function isPlain(latin1: string): boolean {
  return latin1.length <= MAX_PATH_BYTES
}

export function fromPath(path: string): string {
  return Buffer.from(path).toString('latin1')
}

/**
 * Plain paths to the entries of a tree: half as much work for the kernel as those of a TreeCursor, but a directory that is swapped for a symlink
 * in the meantime would be followed. For reading what is only hashed: nothing of it leaves the thread, and what is hashed wrongly is never proven.
 */
export class PlainPaths {
  readonly #listing: Listing
  readonly #root: string
  readonly #cursor: TreeCursor
  #directory = -1
  #prefix = ''

  constructor(root: string, listing: Listing) {
    this.#listing = listing
    this.#cursor = new TreeCursor(root, listing)
    this.#root = fromPath(this.#cursor.root)
  }

  path(entry: number): string | Buffer {
    if (entry === 0) return this.#cursor.root
    const parent = this.#listing.parent(entry)
    if (parent !== this.#directory) {
      this.#directory = parent
      this.#prefix = `${this.#pathOf(parent)}/`
    }
    const path = this.#prefix + this.#name(entry)
    return isPlain(path) ? toPath(path) : this.#cursor.path(entry)
  }

  show(entry: number): string {
    return this.#cursor.show(entry)
  }

  close(): void {
    this.#cursor.close()
  }

  #pathOf(directory: number): string {
    return directory === 0 ? this.#root : `${this.#pathOf(this.#listing.parent(directory))}/${this.#name(directory)}`
  }

  #name(entry: number): string {
    const { buffer, byteOffset, byteLength } = this.#listing.name(entry)
    return Buffer.from(buffer, byteOffset, byteLength).toString('latin1')
  }
}

function isAscii(latin1: string): boolean {
  for (let at = 0; at < latin1.length; at++) if (latin1.charCodeAt(at) > 127) return false
  return true
}
