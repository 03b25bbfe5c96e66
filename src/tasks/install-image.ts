import { messageOf, NarvikError } from '../errors.ts'
import { decodeManifest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import type { Ref } from '../image/ref.ts'
import { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'
import { registerRoots } from '../nix/roots.ts'
import { StoreWriter } from '../nix/store-writer.ts'
import { tryParseStorePath } from '../nix/store-path.ts'
import type { ImageRow, Registration } from '../store/image-row.ts'
import { findClosure, type Member, memberOf } from './closure.ts'
import type { TaskContext } from './context.ts'
import { isDamage } from './read-run.ts'
import type { Progress } from './jobs.ts'
import { requireImage } from './refs.ts'
import { handleDamage } from './verify-image.ts'

export interface InstallRequest {
  readonly ref: Ref
  /** Whether Nix is to refuse what neither a trusted key has signed nor its content address proves; true where absent. */
  readonly checkSignatures?: boolean | undefined
  /** Whether everything that it refers to is registered as well, before it. */
  readonly closure?: boolean | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

export interface Installed {
  readonly storePath: string
  /** The paths that were not valid in the store before, in the order in which they were registered. */
  readonly added: readonly string[]
}

/**
 * Registers a verified image in the Nix store of this host under its store path, with its references, deriver,
 * signatures and content address. Nix hashes what it is sent, and judges the signatures with its own trusted keys.
 */
export async function installImage(context: TaskContext, request: InstallRequest): Promise<Installed> {
  const { catalog } = context
  const row = requireImage(catalog, request.ref)
  const root = memberOf(catalog, row, request.ref)
  const image = installable(context, row, root?.registration)
  if (request.closure !== true || root === undefined) return installAll(context, [image], request)
  const { members, missing } = await findClosure(catalog, root)
  if (missing.length > 0) throw incomplete(image.storePath, missing)
  return installAll(context, members.map(member => installable(context, member.row, member.registration)), request)
}

/** An image that can be registered: verified, and a path of this Nix's store. */
interface Installable {
  readonly row: ImageRow
  readonly storePath: string
  readonly registration: Registration
  readonly narSize: number
  /** Where the verified tree is. */
  readonly tree: string
}

/** @throws NarvikError `conflict` where the image is not verified or no store path, `refused` where it belongs to another store. */
function installable({ content, nix, settings }: TaskContext, row: ImageRow, registration: Registration | undefined): Installable {
  const { narHash, narSize, manifestDigest } = row
  const shown = registration?.storePath ?? narHash.toSri()
  const tree = content.visiblePath(row)
  if (tree === null || narSize === null || manifestDigest === null) throw new NarvikError('conflict', `Cannot install ${shown}: found it ${row.state}, needed it verified`, { hint: `See: narvik show ${shown}` })
  if (registration === undefined) {
    throw new NarvikError('conflict', `Cannot install ${shown}: found no store path in its metadata, needed one`, { hint: 'Only what was imported from a Nix store has one; `narvik export` copies a tree out, `nix store add-path` makes a store path of it' })
  }
  if (!settings.useNix) throw new NarvikError('refused', `Cannot install ${shown}: found Nix turned off in the config, needed nix.enabled = true`)
  const { storePath, references, deriver } = registration
  for (const path of [storePath, ...references, ...(deriver === null ? [] : [deriver])]) {
    if (tryParseStorePath(path, nix.storeDir) !== undefined) continue
    throw new NarvikError('refused', `Cannot install ${shown}: found ${path === storePath ? 'it' : path} in another store directory, needed ${nix.storeDir}`, { hint: 'Nix paths work only in the store directory that they were built for' })
  }
  return { row, storePath, registration, narSize, tree }
}

/** Registers images over one connection, each after those that it refers to. */
async function installAll(context: TaskContext, images: readonly Installable[], request: Omit<InstallRequest, 'ref'>): Promise<Installed> {
  const last = images.at(-1)
  if (last === undefined) throw new NarvikError('internal', 'Cannot install: found no image')
  const total = images.reduce((sum, { narSize }) => sum + narSize, 0)
  let done = 0
  const added: string[] = []
  await StoreWriter.use(context.nix, async writer => {
    for (const image of images) {
      const report = (bytes: number): void => {
        request.onProgress?.({ narHash: last.row.narHash.toSri(), phase: 'installing', bytes: done + bytes, totalBytes: total, bytesPerSecond: 0, peers: [] })
      }
      if (await installOne(context, writer, image, { ...request, report })) added.push(image.storePath)
      await keepInstalled(context, writer, image)
      done += image.narSize
    }
  }, { signal: request.signal })
  context.logger.info('installed', { storePath: last.storePath, added: added.length })
  return { storePath: last.storePath, added }
}

/**
 * As `installImage`, for paths of which some may fail: those are told of, and the others are installed all the same.
 * Answers with how many were.
 */
export async function installEach(context: TaskContext, members: readonly Member[], { signal, onFailure }: { signal: AbortSignal, onFailure: (member: Member, error: unknown) => void }): Promise<number> {
  const left = [...members]
  let installed = 0
  while (left.length > 0) {
    let current: Member | undefined
    try {
      await StoreWriter.use(context.nix, async writer => {
        for (current = left.shift(); current !== undefined; current = left.shift()) {
          const image = installable(context, current.row, current.registration)
          await installOne(context, writer, image, { signal, report: () => undefined })
          await keepInstalled(context, writer, image)
          installed++
        }
      }, { signal })
    } catch (error) {
      signal.throwIfAborted()
      // A connection is of no use after a refusal; where none could be had, the next would be no better.
      for (const member of current === undefined ? left.splice(0) : [current]) onFailure(member, error)
    }
  }
  return installed
}

/** Has Nix keep what is installed for as long as the catalog has the image. */
async function keepInstalled(context: TaskContext, writer: StoreWriter, { row: { narHash }, storePath }: Installable): Promise<void> {
  const { catalog, content, nix, logger } = context
  const link = content.roots.installedPath(narHash, storePath)
  const failures = new Map<string, NarvikError>()
  await registerRoots(nix, writer, [{ link, path: storePath }], failures)
  if (catalog.get(narHash) === undefined) return content.roots.removeLink(link)
  const failure = failures.get(link)
  if (failure !== undefined) logger.warn('cannot protect an installed path from the garbage collector', { storePath, reason: failure.message })
  noteInstall(context, narHash, failure === undefined ? null : `it is there, but Nix's garbage collector may remove it: ${failure.message}`)
}

const NOTE = 'In the Nix store: '

/** Puts down why an image is not installed as it should be, or that it is. */
export function noteInstall({ catalog }: Pick<TaskContext, 'catalog'>, narHash: NarHash, problem: string | null): void {
  const note = catalog.get(narHash)?.note ?? null
  if (problem !== null) catalog.setNote(narHash, `${NOTE}${problem}`)
  else if (note?.startsWith(NOTE) === true) catalog.setNote(narHash, null)
}

interface Options extends Omit<InstallRequest, 'ref'> {
  readonly report: (bytes: number) => void
}

/** Says whether the path was not there before. */
async function installOne(context: TaskContext, writer: StoreWriter, image: Installable, options: Options): Promise<boolean> {
  const { row, storePath, registration, narSize } = image
  // First kept, then asked for: what is valid can't be collected in between.
  await writer.keep(storePath)
  const known = await writer.pathInfo(storePath)
  if (known !== null) {
    await complete(writer, image, known)
    return false
  }
  await requireReferences(writer, image)
  const { references, deriver, ca, signatures } = registration
  try {
    const info = { path: storePath, narHash: row.narHash, narSize, references, deriver, ca, signatures }
    await writer.add(info, readImage(context, image, options), { checkSignatures: options.checkSignatures ?? true })
    return true
  } catch (error) {
    // What is on disk is not what was proven, however it was noticed.
    if (isDamage(error) || /(?:hash|size) mismatch importing path/.test(messageOf(error))) handleDamage(context, row, messageOf(error))
    throw refusal(error, storePath)
  }
}

/** That nobody trusted has signed it is a decision, and no failure of Nix. */
function refusal(error: unknown, storePath: string): unknown {
  if (!/lacks a (?:valid )?signature/.test(messageOf(error))) return error
  return new NarvikError('refused', `Cannot install ${storePath}: found neither a signature by a key that Nix trusts nor a content address, needed one of them`, {
    hint: 'Put the key that signs your builds into trusted-public-keys in nix.conf, or install it all the same with --no-check-sigs', cause: error,
  })
}

/** The path is valid already: only the signatures that it lacks are added. */
async function complete(writer: StoreWriter, { row, storePath, registration }: Installable, known: NixPathInfo): Promise<void> {
  if (!known.narHash.equals(row.narHash)) {
    throw new NarvikError('conflict', `Cannot install ${storePath}: found it valid in the Nix store with the NAR hash ${known.narHash.toSri()}, needed ${row.narHash.toSri()}`, {
      hint: 'Two builds of one path can differ; delete the other with `nix store delete` if this is the one that you want',
    })
  }
  const lacking = registration.signatures.filter(signature => !known.signatures.includes(signature))
  if (lacking.length > 0) await writer.addSignatures(storePath, lacking)
}

async function requireReferences(writer: StoreWriter, { registration, storePath }: Installable): Promise<void> {
  const references = registration.references.filter(path => path !== storePath)
  for (const path of references) await writer.keep(path)
  const valid = await writer.validPaths(references)
  const missing = references.filter(path => !valid.has(path))
  if (missing.length === 0) return
  throw new NarvikError('conflict', `Cannot install ${storePath}: found ${missing.length} of its ${references.length} references missing in the Nix store (${shorten(missing)}), needed all of them valid`, {
    hint: 'Install them first, or all at once: narvik fetch --closure, then narvik install --closure',
  })
}

function incomplete(storePath: string, missing: readonly string[]): NarvikError {
  return new NarvikError('conflict', `Cannot install the closure of ${storePath}: found ${missing.length} of the paths that it needs not verified here (${shorten(missing)}), needed all of them`, {
    hint: 'Bring them with: narvik fetch --closure',
  })
}

/** The first few of many. */
function shorten(paths: readonly string[]): string {
  return paths.length <= SHOWN_PATHS ? paths.join(', ') : `${paths.slice(0, SHOWN_PATHS).join(', ')} and ${paths.length - SHOWN_PATHS} more`
}

const SHOWN_PATHS = 10

async function* readImage({ catalog }: TaskContext, { row, tree }: Installable, { signal, report }: Options): AsyncGenerator<Uint8Array> {
  const manifest = catalog.manifest(row.narHash)
  if (manifest === undefined) throw new NarvikError('not-found', `Cannot read ${row.narHash.toSri()}: it was removed meanwhile`)
  const layout = Layout.describedBy(decodeManifest(manifest))
  let read = 0
  for await (const bytes of readRange(tree, layout, 0, layout.narSize, signal === undefined ? {} : { signal })) {
    yield bytes
    read += bytes.length
    report(read)
  }
}
