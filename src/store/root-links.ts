import { readdir, readlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fromSystemError } from '../errors.ts'
import { NarHash } from '../image/nar-hash.ts'
import { isAbsence, kindOf } from './durable.ts'

/**
 * The links under `gcroots/` through which Nix's garbage collector is told to leave the store paths of images alone. Nix
 * itself makes them, since it has to register each; here they are looked at and removed.
 */
export class RootLinks {
  readonly #dir: string

  constructor(dir: string) {
    this.#dir = dir
  }

  /** Where the link of an image is, or is to be. */
  path(narHash: NarHash): string {
    return join(this.#dir, narHash.toNix32())
  }

  /** The store path that is protected for an image; undefined where there is no link. */
  async target(narHash: NarHash): Promise<string | undefined> {
    const link = this.path(narHash)
    try {
      return await kindOf(link) === 'symlink' ? await readlink(link) : undefined
    } catch (error) {
      throw fromSystemError(error, `read ${link}`)
    }
  }

  /** Gives a store path free; a link that is not there is no error. Nix forgets its registration by itself. */
  async remove(narHash: NarHash): Promise<void> {
    const link = this.path(narHash)
    try {
      await unlink(link)
    } catch (error) {
      if (!isAbsence(error)) throw fromSystemError(error, `remove ${link}`)
    }
  }

  /** The images that have a link. Whatever else is in the directory is passed over. */
  async list(): Promise<NarHash[]> {
    try {
      const names = await readdir(this.#dir)
      return names.map(name => NarHash.tryParse(name)).filter((narHash, index) => narHash?.toNix32() === names[index]).filter(narHash => narHash !== undefined)
    } catch (error) {
      throw fromSystemError(error, `list ${this.#dir}`)
    }
  }
}
