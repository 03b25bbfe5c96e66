import { readdir, readlink, unlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fromSystemError } from '../errors.ts'
import { NarHash } from '../image/nar-hash.ts'
import { isAbsence, kindOf } from './durable.ts'

/** The hash at the start of a store path's name. */
const STORE_HASH_CHARACTERS = 32

export interface InstalledRoot {
  readonly narHash: NarHash
  readonly link: string
  /** What the link protects. */
  readonly storePath: string
}

/**
 * The links under `gcroots/` through which Nix's garbage collector is told to leave the store paths of images alone. Nix
 * itself makes them, since it has to register each; here they are looked at and removed.
 */
export class RootLinks {
  readonly #dir: string

  constructor(dir: string) {
    this.#dir = dir
  }

  /** Where the link of an image is, or is to be, whose tree is in the Nix store. */
  path(narHash: NarHash): string {
    return join(this.#dir, narHash.toNix32())
  }

  /** Where the link of an image is, or is to be, that is installed at a store path; it may be installed at several. */
  installedPath(narHash: NarHash, storePath: string): string {
    return join(this.#dir, `${narHash.toNix32()}-${basename(storePath).slice(0, STORE_HASH_CHARACTERS)}`)
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

  /** Every store path that an image is installed at. */
  async installed(): Promise<InstalledRoot[]> {
    const found: InstalledRoot[] = []
    for (const name of await this.#names()) {
      const [hash = '', rest] = name.split('-')
      const narHash = rest === undefined ? undefined : NarHash.tryParse(hash)
      const link = join(this.#dir, name)
      if (narHash?.toNix32() === hash && await kindOf(link) === 'symlink') found.push({ narHash, link, storePath: await readlink(link) })
    }
    return found
  }

  /** Whether an image is installed at a store path, as far as Narvik has done it. */
  async isInstalled(narHash: NarHash, storePath: string): Promise<boolean> {
    return await kindOf(this.installedPath(narHash, storePath)) === 'symlink'
  }

  /** Gives all store paths of an image free. Nix forgets their registration by itself. */
  async remove(narHash: NarHash): Promise<void> {
    for (const name of await this.#names()) if (name === narHash.toNix32() || name.startsWith(`${narHash.toNix32()}-`)) await this.removeLink(join(this.#dir, name))
  }

  /** Gives one store path free; a link that is not there is no error. */
  async removeLink(link: string): Promise<void> {
    try {
      await unlink(link)
    } catch (error) {
      if (!isAbsence(error)) throw fromSystemError(error, `remove ${link}`)
    }
  }

  /** The images whose tree is in the Nix store and that have a link. Whatever else is in the directory is passed over. */
  async list(): Promise<NarHash[]> {
    const names = await this.#names()
    return names.map(name => NarHash.tryParse(name)).filter((narHash, index) => narHash?.toNix32() === names[index]).filter(narHash => narHash !== undefined)
  }

  async #names(): Promise<string[]> {
    try {
      return await readdir(this.#dir)
    } catch (error) {
      throw fromSystemError(error, `list ${this.#dir}`)
    }
  }
}
