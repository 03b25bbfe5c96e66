import { MAX_LISTING_ENTRIES, MAX_MANIFEST_BYTES, MAX_NAR_DEPTH, MAX_NAR_SIZE } from '../limits.ts'
import { type EntryKind, nameProblem, showBytes, targetProblem } from './entry.ts'

/** What a listing holds: one number per entry and column, so that a million entries take some 20 MB and their names. */
export interface ListingColumns {
  readonly kinds: Uint8Array<ArrayBuffer>
  readonly depths: Uint8Array<ArrayBuffer>
  readonly nameLengths: Uint8Array<ArrayBuffer>
  /** Index of the directory that an entry is in; 0 for the root itself. */
  readonly parents: Uint32Array<ArrayBuffer>
  /** Bytes of a regular file; index after the subtree of a directory. */
  readonly values: Float64Array<ArrayBuffer>
  /** Where an entry's name begins in `text`; its target follows, up to the next entry's name. One more than entries. */
  readonly starts: Uint32Array<ArrayBuffer>
  readonly text: Uint8Array<ArrayBuffer>
}

/**
 * The shape of a tree: every entry but the contents of its files, in pre-order, the entries of a directory in the order
 * of their names' bytes. Entry 0 is the root. An entry is asked for by its index, below `count`.
 */
export class Listing {
  readonly columns: ListingColumns
  readonly count: number

  /** Takes columns that a `ListingBuilder` made, for instance in another thread; they are not checked again. */
  constructor(columns: ListingColumns) {
    this.columns = columns
    this.count = columns.kinds.length
  }

  kind(entry: number): EntryKind {
    const kind = this.columns.kinds[entry]
    if (kind === SYMLINK) return 'symlink'
    return kind === DIRECTORY ? 'directory' : 'regular'
  }

  /** The bytes of the name, a view; empty for the root. */
  name(entry: number): Uint8Array {
    const start = this.#start(entry)
    return this.columns.text.subarray(start, start + this.nameLength(entry))
  }

  nameLength(entry: number): number {
    return this.columns.nameLengths[entry] ?? 0
  }

  /** The bytes of a symlink's target, a view; empty for any other kind. */
  target(entry: number): Uint8Array {
    return this.columns.text.subarray(this.#start(entry) + this.nameLength(entry), this.#start(entry + 1))
  }

  targetLength(entry: number): number {
    return this.#start(entry + 1) - this.#start(entry) - this.nameLength(entry)
  }

  /** Bytes of a regular file; 0 for any other kind. */
  size(entry: number): number {
    return this.kind(entry) === 'regular' ? this.columns.values[entry] ?? 0 : 0
  }

  executable(entry: number): boolean {
    return this.columns.kinds[entry] === EXECUTABLE
  }

  /** The index after the last entry below this one: of its next sibling, where it has one. */
  end(entry: number): number {
    return this.columns.kinds[entry] === DIRECTORY ? this.columns.values[entry] ?? 0 : entry + 1
  }

  /** 0 for the root. */
  depth(entry: number): number {
    return this.columns.depths[entry] ?? 0
  }

  /** The directory that holds the entry; 0 for the root itself. */
  parent(entry: number): number {
    return this.columns.parents[entry] ?? 0
  }

  /** The path from the root for a message, `.` for the root. */
  show(entry: number): string {
    const names: string[] = []
    for (let at = entry; at > 0; at = this.parent(at)) names.unshift(showBytes(this.name(at)))
    return names.length === 0 ? '.' : names.join('/')
  }

  #start(entry: number): number {
    return this.columns.starts[entry] ?? 0
  }
}

/** Why an entry has no place in a listing; whoever builds one adds where it stood. The message reads `found …, needed …`. */
export class ListingProblem extends Error {
  override readonly name = 'ListingProblem'
  /** Whether it is only too large or too many, not malformed. */
  readonly overLimit: boolean

  constructor(message: string, overLimit = false) {
    super(message)
    this.overLimit = overLimit
  }
}

/**
 * Makes a listing entry by entry, in its order; `leave` ends a directory. The first entry is the root and its name is empty.
 * Every method throws a ListingProblem on what Nix would refuse in a NAR, or what is over Narvik's limits.
 */
export class ListingBuilder {
  #columns = allocate(64, 1024)
  #count = 0
  #textLength = 0
  #contentBytes = 0
  /** The directories that are open, the innermost last, and the last entry that each got (0 for none). */
  readonly #open: number[] = []
  readonly #last: number[] = []

  directory(name: Uint8Array): void {
    const entry = this.#add(DIRECTORY, name, NOTHING, 0)
    this.#open.push(entry)
    this.#last.push(0)
  }

  regular(name: Uint8Array, size: number, executable: boolean): void {
    if (!Number.isSafeInteger(size) || size < 0) throw new ListingProblem(`found a size of ${size}, needed a whole number`)
    if (this.#contentBytes + size > MAX_NAR_SIZE) throw new ListingProblem(`found files of more than ${MAX_NAR_SIZE} bytes, needed at most that`, true)
    this.#add(executable ? EXECUTABLE : REGULAR, name, NOTHING, size)
    this.#contentBytes += size
  }

  symlink(name: Uint8Array, target: Uint8Array): void {
    const problem = targetProblem(target)
    if (problem !== undefined) throw new ListingProblem(problem)
    this.#add(SYMLINK, name, target, 0)
  }

  leave(): void {
    const directory = this.#open.pop()
    this.#last.pop()
    if (directory === undefined) throw new ListingProblem('found the end of a directory, needed an open one')
    this.#columns.values[directory] = this.#count
  }

  /** @throws ListingProblem where there is no root, or a directory is still open. */
  build(): Listing {
    if (this.#count === 0 || this.#open.length > 0) throw new ListingProblem('found an unfinished tree, needed one with every directory ended')
    this.#columns.starts[this.#count] = this.#textLength
    return new Listing(resize(this.#columns, this.#count, this.#textLength))
  }

  #add(kind: number, name: Uint8Array, target: Uint8Array, value: number): number {
    const entry = this.#count
    if (entry >= MAX_LISTING_ENTRIES) throw new ListingProblem(`found more than ${MAX_LISTING_ENTRIES} entries, needed at most that`, true)
    if (this.#open.length >= MAX_NAR_DEPTH) throw new ListingProblem(`found an entry at depth ${this.#open.length}, needed a depth below ${MAX_NAR_DEPTH}`)
    this.#checkName(name)
    this.#reserve(name.length + target.length)
    const columns = this.#columns
    columns.kinds[entry] = kind
    columns.depths[entry] = this.#open.length
    columns.nameLengths[entry] = name.length
    columns.parents[entry] = this.#open.at(-1) ?? 0
    columns.values[entry] = value
    columns.starts[entry] = this.#textLength
    columns.text.set(name, this.#textLength)
    columns.text.set(target, this.#textLength + name.length)
    this.#textLength += name.length + target.length
    if (this.#last.length > 0) this.#last[this.#last.length - 1] = entry
    this.#count++
    return entry
  }

  #checkName(name: Uint8Array): void {
    const last = this.#last.at(-1)
    if (last === undefined) {
      if (this.#count > 0) throw new ListingProblem('found an entry after the root, needed a single tree')
      if (name.length > 0) throw new ListingProblem('found a name for the root, needed none')
      return
    }
    const problem = nameProblem(name)
    if (problem !== undefined) throw new ListingProblem(problem)
    if (last > 0 && Buffer.compare(this.#name(last), name) >= 0) {
      throw new ListingProblem(`found ${showBytes(name)} after ${showBytes(this.#name(last))}, needed names in strictly ascending order`)
    }
  }

  #name(entry: number): Uint8Array {
    const start = this.#columns.starts[entry] ?? 0
    return this.#columns.text.subarray(start, start + (this.#columns.nameLengths[entry] ?? 0))
  }

  #reserve(textBytes: number): void {
    const text = this.#textLength + textBytes
    if (text > MAX_MANIFEST_BYTES) throw new ListingProblem(`found names and symlink targets of more than ${MAX_MANIFEST_BYTES} bytes, needed at most that`, true)
    if (this.#count < this.#columns.kinds.length && text <= this.#columns.text.length) return
    this.#columns = resize(this.#columns, grown(this.#columns.kinds.length, this.#count + 1), grown(this.#columns.text.length, text))
  }
}

/** The values of the `kinds` column, and the tags of the encoding. */
export const DIRECTORY = 1
export const REGULAR = 2
export const EXECUTABLE = 3
export const SYMLINK = 4

const NOTHING = new Uint8Array(0)

function grown(length: number, needed: number): number {
  return needed <= length ? length : Math.max(needed, length * 2)
}

function allocate(entries: number, textBytes: number): ListingColumns {
  return {
    kinds: new Uint8Array(entries),
    depths: new Uint8Array(entries),
    nameLengths: new Uint8Array(entries),
    parents: new Uint32Array(entries),
    values: new Float64Array(entries),
    starts: new Uint32Array(entries + 1),
    text: new Uint8Array(textBytes),
  }
}

function resize(from: ListingColumns, entries: number, textBytes: number): ListingColumns {
  const to = allocate(entries, textBytes)
  for (const column of ['kinds', 'depths', 'nameLengths', 'parents', 'values'] as const) to[column].set(from[column].subarray(0, entries))
  to.starts.set(from.starts.subarray(0, entries + 1))
  to.text.set(from.text.subarray(0, textBytes))
  return to
}
