import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { resolve } from 'node:path'
import { NarvikError, systemCode } from '../../errors.ts'
import { showBytes } from '../../image/entry.ts'
import { type Listing, ListingBuilder, ListingProblem } from '../../image/listing.ts'
import { changedError, checkProc, OPEN_DIRECTORY, pathIn, treeError } from '../directory.ts'
import { fromPath, isPlain, toPath } from './plain-paths.ts'

/**
 * The listing of the tree at `root`, by a walk that reads no contents and follows no symlink. It does not wait for anything, so it is for a
 * worker thread. A directory that is swapped for a symlink meanwhile can't lead it astray. `check` is called for every entry and may throw to end the walk.
 * @throws NarvikError `not-found`, `unsupported-file`, `unreadable`, `refused` (for what newer Nix refuses in a NAR), `too-large`.
 */
export function walkTree(root: string, check: () => void): Listing {
  return list(root, check, { measures: true })
}

/**
 * As `walkTree`, but each file is listed as an empty one that is not executable, for `measureFiles` to correct: half of the work, and the half that
 * one thread has to do alone. It uses plain paths, which are faster; see PlainPaths.
 */
export function walkNames(root: string, check: () => void): Listing {
  return list(root, check, { measures: false })
}

function list(root: string, check: () => void, { measures }: { measures: boolean }): Listing {
  checkProc()
  const top = resolve(root)
  const walk: Walk = { builder: new ListingBuilder(), check, top, names: [], measures }
  try {
    visit(walk, undefined, '', lookAtRoot(top))
    return walk.builder.build()
  } catch (error) {
    if (!(error instanceof ListingProblem)) throw error
    throw new NarvikError(error.overLimit ? 'too-large' : 'refused', `Cannot take ${show(walk)}: ${error.message}`)
  }
}

interface Walk {
  readonly builder: ListingBuilder
  readonly check: () => void
  readonly top: string
  /** From the top to the entry that is being visited, for messages. */
  readonly names: string[]
  /** Whether files are looked at. */
  readonly measures: boolean
}

/** A directory that is open. Strings of paths and names have one character for each byte. */
interface Parent {
  readonly fd: number
  /** Its path from the top; undefined where plain paths are not used, or would be too long. */
  readonly plain: string | undefined
}

/** What is known of an entry's kind: of a `Stats` or `Dirent`. */
type Kind = Pick<Stats, 'isFile' | 'isDirectory' | 'isSymbolicLink' | 'isFIFO' | 'isSocket' | 'isBlockDevice'>

function lookAtRoot(top: string): Stats {
  try {
    return lstatSync(top)
  } catch (error) {
    throw treeError(error, `take ${top}`)
  }
}

/** The top itself has no parent and an empty name. */
function visit(walk: Walk, parent: Parent | undefined, name: string, kind: Kind): void {
  walk.check()
  if (kind.isFile()) visitFile(walk, parent, name)
  else if (kind.isSymbolicLink()) walk.builder.symlink(bytesOf(name), attempt(walk, () => readlinkSync(pathOf(walk, parent, name), { encoding: 'buffer' })))
  else if (kind.isDirectory()) visitDirectory(walk, parent, name)
  else throw new NarvikError('unsupported-file', `Cannot take ${show(walk)}: found ${describeKind(kind)}, needed a file, directory or symlink`)
}

function visitFile(walk: Walk, parent: Parent | undefined, name: string): void {
  if (!walk.measures) {
    walk.builder.regular(bytesOf(name), 0, false)
    return
  }
  const stat = attempt(walk, () => lstatSync(pathOf(walk, parent, name)))
  if (!stat.isFile()) throw replaced(show(walk))
  walk.builder.regular(bytesOf(name), stat.size, isExecutable(stat))
}

export function isExecutable({ mode }: Stats): boolean {
  return (mode & 0o100) !== 0
}

export function replaced(path: string): NarvikError {
  return new NarvikError('changed-while-reading', `Cannot take ${path}: found something else in place of a file, needed the tree unchanged`)
}

function visitDirectory(walk: Walk, parent: Parent | undefined, name: string): void {
  walk.builder.directory(bytesOf(name))
  const fd = attempt(walk, () => openSync(pathOf(walk, parent, name), OPEN_DIRECTORY))
  try {
    const directory = { fd, plain: plainPathOf(walk, parent, name) }
    for (const { name: child, kind } of attempt(walk, () => entriesOf(fd))) {
      walk.names.push(child)
      visit(walk, directory, child, kind)
      walk.names.pop()
    }
  } finally {
    closeSync(fd)
  }
  walk.builder.leave()
}

function pathOf(walk: Walk, parent: Parent | undefined, name: string): string | Buffer {
  if (parent === undefined) return walk.top
  const plain = plainPathOf(walk, parent, name)
  return plain === undefined ? pathIn(parent.fd, bytesOf(name)) : toPath(plain)
}

function plainPathOf({ top, measures }: Walk, parent: Parent | undefined, name: string): string | undefined {
  if (parent === undefined) return measures ? undefined : fromPath(top)
  const plain = parent.plain === undefined ? undefined : `${parent.plain}/${name}`
  return plain !== undefined && isPlain(plain) ? plain : undefined
}

/** The entries of an open directory, in the order of their names' bytes, which is that of the strings. */
function entriesOf(fd: number): { readonly name: string, readonly kind: Kind }[] {
  return kindsOf(`/proc/self/fd/${fd}`).sort((a, b) => a.name < b.name ? -1 : 1)
}

function kindsOf(directory: string): { readonly name: string, readonly kind: Kind }[] {
  try {
    return readdirSync(directory, { encoding: 'latin1', withFileTypes: true }).map(kind => ({ name: kind.name, kind }))
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    // Where the file system doesn't tell kinds, Node asks for each by a name that is wrong where it is not ASCII.
    return readdirSync(directory, { encoding: 'latin1' }).map(name => ({ name, kind: lstatSync(Buffer.concat([Buffer.from(`${directory}/`), bytesOf(name)])) }))
  }
}

function bytesOf(name: string): Buffer {
  return Buffer.from(name, 'latin1')
}

function attempt<T>(walk: Walk, action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw changedError(error, `take ${show(walk)}`)
  }
}

function show({ top, names }: Walk): string {
  return [top, ...names.map(name => showBytes(bytesOf(name)))].join('/')
}

function describeKind(kind: Kind): string {
  if (kind.isFIFO()) return 'a fifo'
  if (kind.isSocket()) return 'a socket'
  return kind.isBlockDevice() ? 'a block device' : 'a character device'
}
