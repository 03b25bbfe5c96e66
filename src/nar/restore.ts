import { createHash } from 'node:crypto'
import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, mkdirSync, openSync, symlinkSync, write, writeSync } from 'node:fs'
import { resolve } from 'node:path'
import { NarvikError, systemCode } from '../errors.ts'
import { showBytes } from '../image/entry.ts'
import { NarHash } from '../image/nar-hash.ts'
import { SMALL_FILE_BYTES } from '../limits.ts'
import { checkProc, OPEN_DIRECTORY, pathIn, treeError } from './directory.ts'
import { type NarVisitor, parseNar } from './parse.ts'
import { removeTree } from './remove.ts'
import { runsOf } from './sparse.ts'

export interface RestoredNar {
  readonly narHash: NarHash
  /** Bytes of the NAR. */
  readonly narSize: number
}

export interface RestoreOptions {
  readonly signal?: AbortSignal
  /** Removes what was made, after a failure; by another thread where absent. */
  readonly remove?: (path: string) => Promise<void>
}

/**
 * Makes the tree of a NAR at `dest`, where nothing may be, as `nix-store --restore` does: modes as the umask has it, times of now. It writes only
 * inside `dest`, whatever the NAR says, and on failure removes what it made. Blocks of zeros become holes.
 * @throws NarvikError `conflict` where something is at `dest`, `invalid-nar`, `disk-full`, `io-error`; the reason of `signal` when it is aborted.
 */
export async function restoreNar(source: AsyncIterable<Uint8Array>, dest: string, { signal, remove = removeTree }: RestoreOptions = {}): Promise<RestoredNar> {
  checkProc()
  const hash = createHash('sha256')
  let narSize = 0
  const hashed = async function* (): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const bytes of source) {
      signal?.throwIfAborted()
      hash.update(bytes)
      narSize += bytes.length
      yield bytes
    }
  }
  const restorer = new Restorer(resolve(dest))
  try {
    await parseNar(hashed(), restorer)
  } catch (error) {
    restorer.close()
    if (restorer.hasBegun) await remove(dest)
    throw error
  }
  return { narHash: NarHash.fromBytes(hash.digest()), narSize }
}

interface OpenFile {
  readonly fd: number
  readonly size: number
  written: number
}

class Restorer implements NarVisitor {
  readonly #dest: string
  /** Whether there is anything at the destination that this made. */
  hasBegun = false
  readonly #directories: number[] = []
  /** The names from the destination to the current directory, for messages. */
  readonly #names: string[] = []
  #file: OpenFile | undefined

  constructor(dest: string) {
    this.#dest = dest
  }

  directory(name: Uint8Array): void {
    this.#attempt(name, path => {
      mkdirSync(path)
      this.hasBegun = true
      this.#directories.push(openSync(path, OPEN_DIRECTORY))
    })
    this.#names.push(showBytes(name))
  }

  leave(): void {
    const directory = this.#directories.pop()
    this.#names.pop()
    if (directory !== undefined) closeSync(directory)
  }

  regular(name: Uint8Array, size: number, executable: boolean): void {
    this.#attempt(name, path => {
      const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o666)
      this.hasBegun = true
      this.#file = { fd, size, written: 0 }
      if (executable) fchmodSync(fd, fstatSync(fd).mode & 0o7777 | 0o111)
    })
    this.#endWhenWritten()
  }

  async contents(bytes: Uint8Array): Promise<void> {
    const file = this.#file
    if (file === undefined) return
    try {
      if (file.size <= SMALL_FILE_BYTES) writeNow(file.fd, bytes, file.written)
      else for (const run of runsOf(bytes, file.written)) {
        if (!run.isZero) await writeFully(file.fd, bytes.subarray(run.start, run.end), file.written + run.start)
      }
      file.written += bytes.length
      this.#endWhenWritten()
    } catch (error) {
      throw treeError(error, `restore to ${this.#dest}`)
    }
  }

  symlink(name: Uint8Array, target: Uint8Array): void {
    this.#attempt(name, path => {
      symlinkSync(Buffer.from(target), path)
      this.hasBegun = true
    })
  }

  close(): void {
    for (const directory of this.#directories.splice(0)) closeSync(directory)
    if (this.#file !== undefined) closeSync(this.#file.fd)
    this.#file = undefined
  }

  /** A hole at the end of a file is there only once the file has its length. */
  #endWhenWritten(): void {
    const file = this.#file
    if (file === undefined || file.written < file.size) return
    ftruncateSync(file.fd, file.size)
    this.#file = undefined
    closeSync(file.fd)
  }

  #attempt(name: Uint8Array, action: (path: string | Buffer) => void): void {
    const directory = this.#directories.at(-1)
    try {
      action(directory === undefined ? this.#dest : pathIn(directory, name))
    } catch (error) {
      const shown = [this.#dest, ...this.#names.slice(1), ...directory === undefined ? [] : [showBytes(name)]].join('/')
      if (systemCode(error) === 'EEXIST') throw new NarvikError('conflict', `Cannot restore to ${shown}: found something there, needed nothing`, { cause: error })
      throw treeError(error, `restore to ${shown}`)
    }
  }
}

function writeNow(fd: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written, bytes.length - written, position + written)
}

function writeFully(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  return new Promise((done, fail) => {
    write(fd, bytes, 0, bytes.length, position, (error, count) => {
      if (error !== null) fail(error)
      else if (count < bytes.length) writeFully(fd, bytes.subarray(count), position + count).then(done, fail)
      else done()
    })
  })
}
