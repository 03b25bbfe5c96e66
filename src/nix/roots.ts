import { randomBytes } from 'node:crypto'
import { rename, symlink } from 'node:fs/promises'
import { fromSystemError, NarvikError } from '../errors.ts'
import type { NixCommand } from './command.ts'
import { NixError } from './nix-error.ts'
import { parseStorePath } from './store-path.ts'
import { StoreWriter } from './store-writer.ts'

export interface Root {
  /** Absolute path of the link that protects; what is there is replaced. */
  readonly link: string
  readonly path: string
}

/**
 * Makes each link a link to a valid path of the store, and has Nix register it as an indirect root: while the link is there, the path
 * and all that it refers to stay. One connection does it for all of them; through the machine's daemon it needs no privileges.
 * Answers with what went wrong, by link, where something did.
 *
 * `nix-store --realise PATH --add-root LINK` would be a process for each path, look for what is missing, and build a derivation.
 * @throws the reason of `signal`; NarvikError `invalid-argument` where one is not a store path of this store.
 */
export async function addRoots(nix: Pick<NixCommand, 'storeDir' | 'startStoreDaemon' | 'hasRoot'>, roots: readonly Root[], { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Map<string, NarvikError>> {
  const failures = new Map<string, NarvikError>()
  for (const { path } of roots) parseStorePath(path, nix.storeDir)
  if (roots.length === 0) return failures
  try {
    await StoreWriter.use(nix, writer => registerRoots(nix, writer, roots, failures), { signal, protects: true })
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof NarvikError)) throw error
    for (const { link } of roots) if (!failures.has(link) && await nix.hasRoot(link) !== true) failures.set(link, error)
  }
  return failures
}

/** As `addRoots`, over a connection that is open. */
export async function registerRoots(nix: Pick<NixCommand, 'hasRoot'>, writer: StoreWriter, roots: readonly Root[], failures: Map<string, NarvikError>): Promise<void> {
  // First kept, then asked for: what is valid can't be collected in between.
  for (const { path } of roots) await writer.keep(path)
  const valid = await writer.validPaths(roots.map(({ path }) => path))
  for (const { link, path } of roots) {
    const problem = valid.has(path) ? await replaceLink(link, path) : new NixError('not-valid', `Cannot protect ${path}: found that it is not valid in the Nix store, needed a valid path`)
    if (problem === undefined) await writer.addIndirectRoot(link)
    if (problem !== undefined) failures.set(link, problem)
    else if (await nix.hasRoot(link) === false) failures.set(link, new NixError('bad-output', `Cannot protect ${path}: found no registration of ${link} by Nix, needed one`))
  }
}

/** Answers with what went wrong. */
async function replaceLink(link: string, path: string): Promise<NarvikError | undefined> {
  const temporary = `${link}.tmp-${randomBytes(8).toString('hex')}`
  try {
    await symlink(path, temporary)
    await rename(temporary, link)
    return undefined
  } catch (error) {
    return fromSystemError(error, `protect ${path}`)
  }
}
