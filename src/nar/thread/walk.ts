import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { resolve } from 'node:path'
import { NarvikError } from '../../errors.ts'
import { showBytes } from '../../image/entry.ts'
import { type Listing, ListingBuilder, ListingProblem } from '../../image/listing.ts'
import { changedError, checkProc, OPEN_DIRECTORY, pathIn, treeError } from '../directory.ts'
import { fromPath, isPlain, toPath } from './plain-paths.ts'

/**
 * The listing of the tree at `root`, by a walk that reads no contents and follows no symlink. It does not wait for anything, so it is for a
 * worker thread. Plain paths are faster, anchored ones can't be led astray by a directory that is swapped for a symlink. `check` is called for every entry and may throw to end the walk.
 * @throws NarvikError `not-found`, `unsupported-file`, `unreadable`, `refused` (for what newer Nix refuses in a NAR), `too-large`.
 */
export function walkTree(root: string, paths: 'plain' | 'anchored', check: () => void): Listing {
  checkProc()
  const top = resolve(root)
  const builder = new ListingBuilder()
  const walk: Walk = { builder, check, path: [top] }
  try {
    visit(walk, NO_NAME, top, paths === 'plain' ? fromPath(top) : undefined)
    return builder.build()
  } catch (error) {
    if (!(error instanceof ListingProblem)) throw error
    throw new NarvikError(error.overLimit ? 'too-large' : 'refused', `Cannot take ${show(walk)}: ${error.message}`)
  }
}

interface Walk {
  readonly builder: ListingBuilder
  readonly check: () => void
  /** The names from the root to the entry that is being visited, for messages. */
  readonly path: (string | Uint8Array)[]
}

const NO_NAME = new Uint8Array(0)

/** `plain` is the path from the top where plain paths are used, one character for each byte. */
function visit(walk: Walk, name: Uint8Array, path: string | Buffer, plain: string | undefined): void {
  walk.check()
  const stat = inspect(walk, path)
  if (stat.isFile()) walk.builder.regular(name, stat.size, (stat.mode & 0o100) !== 0)
  else if (stat.isSymbolicLink()) walk.builder.symlink(name, attempt(walk, () => readlinkSync(path, { encoding: 'buffer' })))
  else if (stat.isDirectory()) visitDirectory(walk, name, path, plain)
  else throw new NarvikError('unsupported-file', `Cannot take ${show(walk)}: found ${describeKind(stat)}, needed a file, directory or symlink`)
}

function inspect(walk: Walk, path: string | Buffer): Stats {
  if (walk.path.length > 1) return attempt(walk, () => lstatSync(path))
  try {
    return lstatSync(path)
  } catch (error) {
    throw treeError(error, `take ${show(walk)}`)
  }
}

function visitDirectory(walk: Walk, name: Uint8Array, path: string | Buffer, plain: string | undefined): void {
  walk.builder.directory(name)
  const directory = attempt(walk, () => openSync(path, OPEN_DIRECTORY))
  try {
    // Latin-1 maps each byte to one character of the same order, so the strings sort as the bytes do, and are small.
    const names = attempt(walk, () => readdirSync(`/proc/self/fd/${directory}`, { encoding: 'latin1' })).sort()
    for (const each of names) {
      const childName = Buffer.from(each, 'latin1')
      const childPlain = plain === undefined ? undefined : `${plain}/${each}`
      const usesPlain = childPlain !== undefined && isPlain(childPlain)
      walk.path.push(childName)
      visit(walk, childName, usesPlain ? toPath(childPlain) : pathIn(directory, childName), usesPlain ? childPlain : undefined)
      walk.path.pop()
    }
  } finally {
    closeSync(directory)
  }
  walk.builder.leave()
}

function attempt<T>(walk: Walk, action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw changedError(error, `take ${show(walk)}`)
  }
}

function show(walk: Walk): string {
  return walk.path.map(part => typeof part === 'string' ? part : showBytes(part)).join('/')
}

function describeKind(stat: Stats): string {
  if (stat.isFIFO()) return 'a fifo'
  if (stat.isSocket()) return 'a socket'
  return stat.isBlockDevice() ? 'a block device' : 'a character device'
}
