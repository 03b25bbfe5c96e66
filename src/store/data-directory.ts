import { chmod, lstat, mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { fromSystemError, NarvikError, systemCode } from '../errors.ts'

/** The directories that content lives in, by their full paths. */
export interface Directories {
  readonly root: string
  readonly quarantine: string
  readonly images: string
  readonly names: string
  readonly roots: string
}

/**
 * Makes and checks the data directory. It is made for its owner only; one that is there keeps its mode, so that whoever
 * opens it to others opens the verified images to them, and never the quarantine.
 */
export async function prepareRoot(path: string): Promise<string> {
  const root = resolve(path)
  try {
    await mkdir(root, { recursive: true, mode: 0o700 })
    const { mode, uid } = await lstat(join(root, '.'))
    checkOwner(root, uid)
    if ((mode & 0o022) !== 0) {
      throw new NarvikError('refused', `Cannot open the data directory ${root}: found that others may write it (mode ${(mode & 0o7777).toString(8)}), needed it writable for its owner only`, { hint: `chmod go-w ${root}` })
    }
    return root
  } catch (error) {
    throw fromSystemError(error, `open the data directory ${root}`)
  }
}

/** What root leaves in another user's directory that user could neither remove nor, in quarantine, read. */
function checkOwner(root: string, uid: number): void {
  const user = process.getuid?.()
  if (uid === user || uid === 0) return
  const hint = user === 0 ? 'Start the service that it belongs to: systemctl start narvikd; or give this daemon its own directory with --data-dir' : `After a move from another host, as root: chown -R ${user ?? ''} ${root}`
  throw new NarvikError('refused', `Cannot open the data directory ${root}: found that it belongs to another user (uid ${uid}), needed it to belong to the one who runs the daemon`, { hint })
}

/** Makes what is absent inside the data directory. To be called by the process that holds its lock. */
export async function prepareDirectories(root: string): Promise<Directories> {
  const directories = { root, quarantine: join(root, 'quarantine'), images: join(root, 'images'), names: join(root, 'by-name'), roots: join(root, 'gcroots') }
  try {
    const quarantine = await prepare(directories.quarantine, 0o700)
    const images = await prepare(directories.images, 0o755)
    await prepare(directories.names, 0o755)
    await prepare(directories.roots, 0o755)
    if (quarantine.dev !== images.dev) {
      throw new NarvikError('conflict', `Cannot open the data directory ${root}: found quarantine and images on two file systems, needed them on one`, { hint: 'An image is published by renaming it; mount one file system over the whole data directory' })
    }
    return directories
  } catch (error) {
    throw fromSystemError(error, `open the data directory ${root}`)
  }
}

async function prepare(path: string, mode: number): Promise<{ dev: number }> {
  try {
    await mkdir(path, { mode })
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
  const found = await lstat(path)
  if (!found.isDirectory()) {
    throw new NarvikError('conflict', `Cannot open ${path}: found that it is no directory, needed one`, { hint: `Move ${path} away and start again` })
  }
  if ((found.mode & 0o777) !== mode) await chmod(path, mode)
  return found
}
