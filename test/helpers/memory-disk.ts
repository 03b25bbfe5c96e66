import { posix } from 'node:path'

/** What a tree of an image has in it; what stands for bytes here. */
export type Bytes = 'part' | 'right' | 'wrong' | 'rotten'

interface Directory { readonly kind: 'directory', mode: number, readonly entries: Map<string, Node> }
interface File { readonly kind: 'file', mode: number, text: string }
interface Link { readonly kind: 'symlink', readonly target: string }
/** The tree of an image, a directory or a single file; nothing looks into it but the judge. */
export interface Tree { readonly kind: 'tree', readonly isDirectory: boolean, mode: number, readonly of: string, bytes: Bytes }
export type Node = Directory | File | Link | Tree

/** Thrown at whatever a process does that has been killed. */
export class Killed extends Error {
  constructor() {
    super('the process was killed')
  }
}

/** A file system in memory that has the calls of `node:fs/promises` that the store uses, and calls `onStep` ahead of each that changes something. */
export class MemoryDisk {
  onStep: (what: string) => void = () => undefined
  #root: Directory = { kind: 'directory', mode: 0o755, entries: new Map() }

  clear(): void {
    this.#root = { kind: 'directory', mode: 0o755, entries: new Map() }
  }

  /** What is at a path, itself rather than what it links to. */
  at(path: string): Node | undefined {
    let node: Node | undefined = this.#root
    for (const part of partsOf(path)) node = node?.kind === 'directory' ? node.entries.get(part) : undefined
    return node
  }

  /** Puts something down, as a process does that writes; the directory is there. */
  put(path: string, node: Node): void {
    this.onStep(`write ${path}`)
    this.#parent(path).entries.set(posix.basename(path), node)
  }

  /** Puts the bytes of a tree in place of those it has. */
  fill(path: string, bytes: Bytes): void {
    const tree = this.at(path)
    if (tree?.kind !== 'tree') throw new TypeError(`there is no tree at ${path}`)
    this.onStep(`write ${path}`)
    tree.bytes = bytes
  }

  names(path: string): string[] {
    const node = this.at(path)
    return node?.kind === 'directory' ? [...node.entries.keys()] : []
  }

  /** The calls, to stand for `node:fs/promises`. */
  get calls() {
    return {
      lstat: (path: string) => attempt(() => statOf(this.#require(path))),
      mkdir: (path: string, options?: { recursive?: boolean, mode?: number }) => attempt(() => { this.#mkdir(path, options) }),
      readdir: (path: string) => attempt(() => [...this.#directory(path).entries.keys()]),
      readlink: (path: string) => attempt(() => {
        const node = this.#require(path)
        if (node.kind !== 'symlink') throw failure('EINVAL', path)
        return node.target
      }),
      rename: (from: string, to: string) => attempt(() => { this.#rename(from, to) }),
      rmdir: (path: string) => attempt(() => {
        if (this.#directory(path).entries.size > 0) throw failure('ENOTEMPTY', path)
        this.#take('rmdir', path)
      }),
      symlink: (target: string, path: string) => attempt(() => {
        if (this.at(path) !== undefined) throw failure('EEXIST', path)
        this.put(path, { kind: 'symlink', target })
      }),
      unlink: (path: string) => attempt(() => { this.#take('unlink', path) }),
      chmod: (path: string, mode: number) => attempt(() => { this.#chmod(path, mode) }),
      open: (path: string, flags?: unknown, mode = 0o666) => attempt(() => this.#open(path, flags, mode)),
    }
  }

  /** Takes a tree apart, as removing does: what is in a directory goes before it. */
  async remove(path: string): Promise<void> {
    await attempt(() => {
      const node = this.at(path)
      if (node === undefined) return
      if (node.kind === 'directory') for (const name of node.entries.keys()) this.#take('unlink', posix.join(path, name))
      this.#take('rmdir', path)
    })
  }

  #open(path: string, flags: unknown, mode: number) {
    if (flags === 'w') this.put(path, { kind: 'file', mode, text: '' })
    const node = this.#require(path)
    return {
      sync: () => attempt(() => undefined),
      stat: () => attempt(() => statOf(node)),
      chmod: (to: number) => attempt(() => { this.#chmod(path, to) }),
      writeFile: (text: string) => attempt(() => {
        this.onStep(`write ${path}`)
        if (node.kind === 'file') node.text = text
      }),
      readFile: () => attempt(() => node.kind === 'file' ? node.text : ''),
      close: () => Promise.resolve(),
    }
  }

  #mkdir(path: string, { recursive = false, mode = 0o777 }: { recursive?: boolean, mode?: number } = {}): void {
    const parent = posix.dirname(path)
    if (recursive && this.at(parent) === undefined) this.#mkdir(parent, { recursive, mode })
    if (this.at(path) !== undefined) {
      if (recursive) return
      throw failure('EEXIST', path)
    }
    this.put(path, { kind: 'directory', mode, entries: new Map() })
  }

  #rename(from: string, to: string): void {
    const node = this.#require(from)
    const there = this.at(to)
    if (there?.kind === 'directory' && there.entries.size > 0) throw failure('ENOTEMPTY', to)
    const goes = this.#parent(to)
    this.onStep(`rename ${from} ${to}`)
    this.#parent(from).entries.delete(posix.basename(from))
    goes.entries.set(posix.basename(to), node)
  }

  #take(call: string, path: string): void {
    this.#require(path)
    this.onStep(`${call} ${path}`)
    this.#parent(path).entries.delete(posix.basename(path))
  }

  #chmod(path: string, mode: number): void {
    const node = this.#require(path)
    this.onStep(`chmod ${path}`)
    if (node.kind !== 'symlink') node.mode = mode
  }

  #require(path: string): Node {
    const node = this.at(path)
    if (node === undefined) throw failure('ENOENT', path)
    return node
  }

  #directory(path: string): Directory {
    const node = this.#require(path)
    if (node.kind !== 'directory') throw failure('ENOTDIR', path)
    return node
  }

  #parent(path: string): Directory {
    return this.#directory(posix.dirname(path))
  }
}

/** The same few paths come again and again. */
const split = new Map<string, string[]>()

function partsOf(path: string): string[] {
  const known = split.get(path)
  if (known !== undefined) return known
  const parts = posix.normalize(path).split('/').filter(part => part !== '' && part !== '.')
  if (split.size > 1000) split.clear()
  split.set(path, parts)
  return parts
}

function statOf(node: Node) {
  const isDirectory = node.kind === 'directory' || (node.kind === 'tree' && node.isDirectory)
  return {
    dev: 1, uid: process.getuid?.(), size: 0, blocks: 0, mode: node.kind === 'symlink' ? 0o777 : node.mode,
    isDirectory: () => isDirectory, isFile: () => node.kind === 'file' || (node.kind === 'tree' && !node.isDirectory), isSymbolicLink: () => node.kind === 'symlink',
  }
}

function failure(code: string, path: string): Error {
  // Most are only asked for their code: where they come from is not worth its cost.
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  const error = Object.assign(new Error(`${code}: ${path}`), { code })
  Error.stackTraceLimit = stackTraceLimit
  return error
}

/** An error becomes a rejection, as of a call that waits for the kernel. */
function attempt<Result>(work: () => Result): Promise<Result> {
  return new Promise(resolve => { resolve(work()) })
}
