import { randomBytes } from 'node:crypto'
import { lstat, mkdir, readdir, rename, rmdir, statfs, symlink, unlink } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fromSystemError, NarvikError, systemCode } from '../errors.ts'
import type { ChunkRun } from '../image/chunk-set.ts'
import { imageName } from '../image/metadata.ts'
import { NarHash } from '../image/nar-hash.ts'
import { removeTree } from '../nar/remove.ts'
import { Arrivals } from './arrivals.ts'
import { prepareDirectories, prepareRoot } from './data-directory.ts'
import type { Directories } from './data-directory.ts'
import { isAbsence, kindOf, renameDurably, syncDirectory } from './durable.ts'
import type { ImageRow } from './image-row.ts'
import { takeInventory } from './inventory.ts'
import type { Inventory } from './inventory.ts'
import { DirectoryLock } from './lock.ts'
import { openRoot, sealRoot } from './root-mode.ts'
import { RootLinks } from './root-links.ts'
import { readProgressFile, writeProgressFile } from './progress.ts'
import type { Progress } from './progress.ts'

/** A tree that is being copied in, and whose NAR hash is not known yet. */
export interface Stage {
  readonly dir: string
  /** Where the tree is to be made; there is nothing yet. */
  readonly tree: string
}

/**
 * The files of the data directory: trees in quarantine, verified trees, links by name. It knows no states: whoever
 * publishes has a verdict. Each change is durable when its method resolves, and is a single rename where a reader could
 * see it, so that a crash leaves the old or the new, and `reconcile` can tell which.
 *
 * Every method throws NarvikError `io-error`, `disk-full` or `unreadable` where the file system fails.
 */
export class Content {
  readonly #directories: Directories
  readonly #lock: DirectoryLock
  /** What keeps Nix's garbage collector away from images in its store. */
  readonly roots: RootLinks

  private constructor(directories: Directories, lock: DirectoryLock) {
    this.#directories = directories
    this.roots = new RootLinks(directories.roots)
    this.#lock = lock
  }

  /**
   * Makes the data directory where there is none, and takes it for this process.
   * @throws NarvikError `in-use` where another daemon has it, `refused` where others may write it, or it is another user's.
   */
  static async open(dataDir: string): Promise<Content> {
    const root = await prepareRoot(dataDir)
    const lock = DirectoryLock.take(root)
    try {
      return new Content(await prepareDirectories(root), lock)
    } catch (error) {
      lock.release()
      throw error
    }
  }

  /** Gives the data directory free. */
  close(): void {
    this.#lock.release()
  }

  get dataDir(): string {
    return this.#directories.root
  }

  /** Where the tree of an image is received, and stays until it is proven. */
  quarantineTree(narHash: NarHash): string {
    return join(this.quarantine(narHash), 'tree')
  }

  /** Where everything is that an image has in quarantine. */
  quarantine(narHash: NarHash): string {
    return join(this.#directories.quarantine, narHash.toNix32())
  }

  /** Where the proven tree of an image is. */
  imageTree(narHash: NarHash): string {
    return join(this.#directories.images, narHash.toNix32())
  }

  /** The path of an image that may be shown: that of a verified one; null for every other. */
  visiblePath(row: Pick<ImageRow, 'narHash' | 'state' | 'place' | 'storePath'>): string | null {
    if (row.state !== 'verified') return null
    return row.place === 'nix-store' ? row.storePath : this.imageTree(row.narHash)
  }

  /** Makes the quarantine of an image; what is in it already stays. */
  async begin(narHash: NarHash): Promise<void> {
    await attempt(`make ${this.quarantine(narHash)}`, async () => {
      await makeDirectory(this.quarantine(narHash))
      await syncDirectory(this.#directories.quarantine)
    })
  }

  /** Makes a place for a tree whose NAR hash is not known yet; `adopt` or `discardStage` ends it. */
  async stage(): Promise<Stage> {
    const dir = this.#temporary('stage')
    await attempt(`make ${dir}`, () => mkdir(dir, { mode: 0o700 }))
    return { dir, tree: join(dir, 'tree') }
  }

  /**
   * Makes a staged tree the quarantined tree of an image.
   * @throws NarvikError `conflict` where the image has something in quarantine already.
   */
  async adopt(stage: Stage, narHash: NarHash): Promise<void> {
    await this.adoptAll([{ stage, narHash }])
  }

  /** As `adopt`, for many at once: they become durable together. Those before one that fails are adopted. */
  async adoptAll(staged: readonly { readonly stage: Stage, readonly narHash: NarHash }[]): Promise<void> {
    await attempt(`move ${staged.map(({ stage }) => stage.dir).join(', ')} into quarantine`, async () => {
      await forAll(staged, ({ stage }) => syncDirectory(stage.dir))
      for (const { stage, narHash } of staged) await rename(stage.dir, this.quarantine(narHash))
      await syncDirectory(this.#directories.quarantine)
    })
  }

  async discardStage(stage: Stage): Promise<void> {
    await removeTree(stage.dir)
  }

  /** Undefined where nothing was written, or nothing that can be relied on: the image is then received from its start. */
  async readProgress(narHash: NarHash): Promise<Progress | undefined> {
    return await readProgressFile(this.#progress(narHash))
  }

  /** Only to be called when the bytes that it speaks of are durable themselves. */
  async writeProgress(narHash: NarHash, progress: Progress): Promise<void> {
    await writeProgressFile(this.#progress(narHash), progress)
  }

  /** The record of the chunks that come between two writings of the progress; to be closed. */
  openArrivals(narHash: NarHash): Arrivals {
    try {
      return Arrivals.open(this.#arrivals(narHash))
    } catch (error) {
      throw fromSystemError(error, `open ${this.#arrivals(narHash)}`)
    }
  }

  /** What came since the progress was written, as far as it is on disk: to be checked before it is believed. */
  readArrivals(narHash: NarHash, chunks: number): ChunkRun[] {
    try {
      return Arrivals.read(this.#arrivals(narHash), chunks)
    } catch (error) {
      throw fromSystemError(error, `read ${this.#arrivals(narHash)}`)
    }
  }

  /**
   * Moves the tree of an image out of quarantine. To be called for a proven tree only, before the catalog says
   * `verified`. A tree that is there already is not a verified one, and gives way.
   * @throws NarvikError `not-found` where there is no tree in quarantine.
   */
  async publish(narHash: NarHash): Promise<void> {
    await this.publishWith(narHash, () => undefined)
  }

  /**
   * As `publish`, then has the catalog claim the tree, and answers what that answers. When claiming fails, for instance
   * because the disk is full, the tree is back in quarantine before the error is thrown.
   */
  async publishWith<Claim>(narHash: NarHash, claim: () => Claim): Promise<Claim> {
    return await this.publishAll([narHash], claim)
  }

  /** As `publishWith`, for many at once, which become durable together: all of them are published, or none. */
  async publishAll<Claim>(narHashes: readonly NarHash[], claim: () => Claim): Promise<Claim> {
    const moved: NarHash[] = []
    return await attempt(`publish ${narHashes.map(narHash => this.quarantineTree(narHash)).join(', ')}`, async () => {
      try {
        for (const narHash of narHashes) {
          await this.#moveIntoSight(narHash)
          moved.push(narHash)
        }
        const claimed = await this.#settleIn(narHashes, claim)
        // The trees are where they belong; what is left in quarantine is removed now or at the next start.
        await forAll(narHashes, narHash => this.#clearQuarantine(narHash).catch(() => undefined))
        return claimed
      } catch (error) {
        for (const narHash of moved) await this.#moveBack(narHash)
        throw error
      }
    })
  }

  async #moveIntoSight(narHash: NarHash): Promise<void> {
    const [from, to] = [this.quarantineTree(narHash), this.imageTree(narHash)]
    if (await kindOf(from) === undefined) throw absent('publish', from)
    await this.#trash(to)
    await openRoot(from)
    await rename(from, to)
  }

  async #moveBack(narHash: NarHash): Promise<void> {
    await openRoot(this.imageTree(narHash))
    await renameDurably(this.imageTree(narHash), this.quarantineTree(narHash))
  }

  async #settleIn<Claim>(narHashes: readonly NarHash[], claim: () => Claim): Promise<Claim> {
    if (narHashes.length === 0) return claim()
    await forAll(narHashes, narHash => sealRoot(this.imageTree(narHash)))
    await syncDirectory(this.#directories.images)
    await forAll(narHashes, narHash => syncDirectory(this.quarantine(narHash)))
    return claim()
  }

  /** Most have nothing left there but the directory itself. */
  async #clearQuarantine(narHash: NarHash): Promise<void> {
    try {
      await rmdir(this.quarantine(narHash))
    } catch {
      await this.#trash(this.quarantine(narHash))
    }
  }

  /**
   * Moves the tree of an image back into quarantine, in place of any that is there.
   * @throws NarvikError `not-found` where there is no published tree.
   */
  async withdraw(narHash: NarHash): Promise<void> {
    const [from, to] = [this.imageTree(narHash), this.quarantineTree(narHash)]
    await attempt(`withdraw ${from}`, async () => {
      if (await kindOf(from) === undefined) throw absent('withdraw', from)
      await this.#trash(this.quarantine(narHash))
      await makeDirectory(this.quarantine(narHash))
      await syncDirectory(this.#directories.quarantine)
      await openRoot(from)
      await renameDurably(from, to)
    })
  }

  /** Removes all files of an image. It is out of sight at once, however long the removing takes. */
  async discard(narHash: NarHash): Promise<void> {
    await this.discardPublished(narHash)
    await this.discardQuarantine(narHash)
  }

  /** Removes the published tree of an image; one that is not there is no error. */
  async discardPublished(narHash: NarHash): Promise<void> {
    await attempt(`remove ${this.imageTree(narHash)}`, () => this.#trash(this.imageTree(narHash)))
  }

  /** Removes what an image has in quarantine: its tree and its progress. */
  async discardQuarantine(narHash: NarHash): Promise<void> {
    await attempt(`remove ${this.quarantine(narHash)}`, () => this.#trash(this.quarantine(narHash)))
  }

  /** Points `by-name/<name>` at a tree, in place of what it pointed at. */
  async link(name: string, target: string): Promise<void> {
    const link = this.#link(name)
    await attempt(`link ${link}`, async () => {
      const temporary = join(this.#directories.names, `.tmp-${randomBytes(8).toString('hex')}`)
      await symlink(this.linkTarget(target), temporary)
      try {
        await renameDurably(temporary, link)
      } catch (error) {
        await unlink(temporary)
        throw error
      }
    })
  }

  /** The text of a link to a tree: relative inside the data directory, so that the directory can be moved as a whole. */
  linkTarget(target: string): string {
    const inside = target.startsWith(`${this.#directories.root}/`)
    return inside ? relative(this.#directories.names, target) : target
  }

  /** The path that `by-name/<name>` gives a tree under. */
  namePath(name: string): string {
    return this.#link(name)
  }

  /** Removes `by-name/<name>`; one that is not there is no error. */
  async unlink(name: string): Promise<void> {
    await attempt(`unlink ${this.#link(name)}`, async () => {
      try {
        await unlink(this.#link(name))
      } catch (error) {
        if (!isAbsence(error)) throw error
      }
      await syncDirectory(this.#directories.names)
    })
  }

  /** Bytes that the daemon may still write. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await attempt(`look at the disk of ${this.dataDir}`, () => statfs(this.dataDir))
    return bavail * bsize
  }

  /** Bytes that the catalog takes. */
  async catalogBytes(): Promise<number> {
    const files = ['catalog.db', 'catalog.db-wal', 'catalog.db-shm'].map(name => join(this.dataDir, name))
    const sizes = await attempt(`look at the catalog in ${this.dataDir}`, () => Promise.all(files.map(sizeOnDisk)))
    return sizes.reduce((sum, bytes) => sum + bytes, 0)
  }

  /** Paths of everything in quarantine, what is being copied in as well. */
  async inQuarantine(): Promise<string[]> {
    const { quarantine } = this.#directories
    return await attempt(`list ${quarantine}`, async () => (await readdir(quarantine)).map(name => join(quarantine, name)))
  }

  /** What is on disk now; for `reconcile`. */
  async inventory(): Promise<Inventory> {
    return await attempt(`list ${this.dataDir}`, () => takeInventory(this.#directories))
  }

  #progress(narHash: NarHash): string {
    return join(this.quarantine(narHash), 'progress.json')
  }

  #arrivals(narHash: NarHash): string {
    return join(this.quarantine(narHash), 'arrivals')
  }

  #temporary(prefix: 'stage' | 'trash'): string {
    return join(this.#directories.quarantine, `${prefix}-${randomBytes(8).toString('hex')}`)
  }

  #link(name: string): string {
    if (imageName.safeParse(name).success) return join(this.#directories.names, name)
    throw new NarvikError('invalid-argument', `Cannot link an image by name: found ${JSON.stringify(name.slice(0, 300))}, needed the name of an image`)
  }

  /** Takes something out of its place in one step, then removes it. */
  async #trash(path: string): Promise<void> {
    if (await kindOf(path) === undefined) return
    const trash = this.#temporary('trash')
    await openRoot(path)
    await renameDurably(path, trash)
    await removeTree(trash)
  }
}

/** Works that wait for the disk at the same time: they share the journal's commits. */
const AT_ONCE = 16

async function forAll<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const left = items.values()
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, async () => {
    for (const item of left) await work(item)
  }))
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}

/** Bytes of a file's blocks; 0 where there is none. */
async function sizeOnDisk(path: string): Promise<number> {
  try {
    return (await lstat(path)).blocks * 512
  } catch (error) {
    if (isAbsence(error)) return 0
    throw error
  }
}

function absent(action: string, path: string): NarvikError {
  return new NarvikError('not-found', `Cannot ${action} ${path}: found nothing there, needed a tree`)
}

async function attempt<Result>(action: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (systemCode(error) === 'ENOTEMPTY' || systemCode(error) === 'EISDIR') {
      throw new NarvikError('conflict', `Cannot ${action}: found something there already, needed nothing`, { cause: error })
    }
    throw fromSystemError(error, action)
  }
}
