import { lstat, realpath } from 'node:fs/promises'
import { basename } from 'node:path'
import { fromSystemError, NarvikError } from '../errors.ts'
import type { Listing } from '../image/listing.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { copyTree } from '../nar/copy.ts'
import { diskBytesOf, measureTree } from '../nar/disk-usage.ts'
import { scanTree } from '../nar/hash-tree.ts'
import { sealTree } from '../nar/seal.ts'
import type { Stage } from '../store/content.ts'
import type { ImageRow } from '../store/image-row.ts'
import { judgeAgain, verifyTree, type Measurement, type Proof } from '../verify/pipeline.ts'
import { clearTheWay } from './clear-the-way.ts'
import type { TaskContext } from './context.ts'
import { checkImportable } from './guarded-paths.ts'
import type { Progress } from './jobs.ts'
import { alignRoots, protect } from './gc-roots.ts'
import { addToStore, askNix, checkFacts, isStorePath, registrationOf, type NixFacts } from './nix-facts.ts'
import { makePrivate } from './make-private.ts'
import { nameImage } from './name-image.ts'
import { checkName } from './refs.ts'
import { settle } from './settle.ts'
import { trustQuestion } from './trust.ts'

export interface ImportRequest {
  /** Absolute path of a tree or store path. */
  readonly path: string
  readonly name?: string | undefined
  /** Whether the image is to be served to nobody. */
  readonly private?: boolean | undefined
  /** What Nix says of the path, where it was asked already. */
  readonly facts?: NixFacts
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

/**
 * Makes a tree on this host a verified, announced image. A valid store path is served from where it is; any other tree
 * is copied (or added to the Nix store, where the settings say so), so that what was proven can't change afterwards.
 */
export async function importImage(context: TaskContext, request: ImportRequest): Promise<ImageRow> {
  const path = await resolveSource(context, request.path)
  await checkImportable(context.settings.guarded, path)
  const listing = await scanTree(path, signalOf(request))
  const facts = request.facts ?? await askNix(context, path, request.signal)
  if (facts.info !== null) return importInPlace(context, request, facts.info, { facts, listing })
  const added = await addToStore(context, path, listing, request.signal)
  if (added !== null) return importInPlace(context, request, added, { facts: { info: added, note: null }, listing })
  return importCopy(context, request, path, { facts, listing })
}

/** A link into the store, such as `result`, stands for the store path, as it does for Nix; any other link is a tree. */
export async function resolveSource({ nix }: TaskContext, path: string): Promise<string> {
  if (!path.startsWith('/')) throw new NarvikError('invalid-argument', `Cannot import ${JSON.stringify(path)}: found a relative path, needed an absolute one`)
  try {
    const found = await lstat(path)
    if (!found.isSymbolicLink()) return path
    const target = await realpath(path).catch(() => path)
    return isStorePath(nix, target) ? target : path
  } catch (error) {
    throw fromSystemError(error, `import ${path}`)
  }
}

/** What is known of a tree before it is proven. */
interface Known {
  readonly facts: NixFacts
  readonly listing: Listing
}

async function importInPlace(context: TaskContext, request: ImportRequest, info: NixPathInfo, { facts, listing }: Known): Promise<ImageRow> {
  const { path, narHash } = info
  const notes = isInPlace(context.catalog.get(narHash)) ? undefined : await protect(context, [{ narHash, storePath: path }], request.signal)
  const note = notes?.get(narHash.toNix32()) ?? null
  try {
    const proof = await prove(request, path, { alterable: true })
    const measured = requireMeasurement(proof, path)
    const checked = checkFacts(facts, measured)
    // A store path that Nix is wrong about may change or go at any time: what was found of it is kept as a copy.
    if (checked.info === null) return await importCopy(context, request, path, { facts: checked, listing })
    return await record(context, request, { proof, measured, facts: { ...checked, note: checked.note ?? note }, stage: null })
  } finally {
    // The image may be another than Nix said, or be here already in another place.
    await alignRoots(context, [narHash])
  }
}

function isInPlace(row: ImageRow | undefined): boolean {
  return row?.state === 'verified' && row.place === 'nix-store'
}

async function importCopy(context: TaskContext, request: ImportRequest, path: string, { facts, listing }: Known): Promise<ImageRow> {
  const stage = await context.content.stage()
  const claim = basename(stage.dir)
  try {
    await context.space.claim(claim, await diskBytesOfCopy(path, listing, signalOf(request)), { signal: request.signal ?? NEVER })
    await copyTree(path, stage.tree, { ...signalOf(request), onProgress: bytes => { report(request, 'copying', bytes) } })
    await sealTree(stage.tree)
    const proof = await prove(request, stage.tree)
    const measured = requireMeasurement(proof, path)
    return await record(context, request, { proof, measured, facts: checkFacts(facts, measured), stage })
  } finally {
    await context.content.discardStage(stage)
    context.space.release(claim)
  }
}

const NEVER = new AbortController().signal

/** A copy has the holes of what it is a copy of. */
async function diskBytesOfCopy(path: string, listing: Listing, options: { signal?: AbortSignal }): Promise<number> {
  return Math.min(diskBytesOf(listing), (await measureTree(path, options)).diskBytes)
}

async function prove(request: ImportRequest, tree: string, { alterable = false } = {}): Promise<Proof> {
  return verifyTree({ tree, expected: null, claims: [], alterable }, { ...signalOf(request), onProgress: bytes => { report(request, 'hashing', bytes) } })
}

function requireMeasurement({ measured, verdict }: Proof, path: string): Measurement {
  if (measured !== null) return measured
  throw new NarvikError('changed-while-reading', `Cannot import ${path}: ${verdict.reason ?? 'it could not be read'}`)
}

interface Finding {
  readonly proof: Proof
  readonly measured: Measurement
  readonly facts: NixFacts
  /** The copy that was proven; null where the tree stays in the Nix store. */
  readonly stage: Stage | null
}

/** Takes the image through its states; one that is verified already stays as it is. */
async function record(context: TaskContext, request: ImportRequest, finding: Finding): Promise<ImageRow> {
  const { narHash } = finding.measured
  context.jobs.abort(narHash, ['fetch', 'resume'], new NarvikError('interrupted', `Cannot go on fetching ${narHash.toSri()}: found it on this host, by an import`))
  const job = context.jobs.run('import', narHash, async () => {
    const known = context.catalog.get(narHash)
    if (known?.state === 'verified') {
      if (finding.facts.info !== null) context.catalog.addStorePath(narHash, registrationOf(finding.facts.info))
      const row = context.catalog.get(narHash) ?? known
      return nameImage(context, request.private === true ? hide(context, row) : row, request.name)
    }
    const name = request.name ?? known?.name ?? null
    if (name !== null) checkName(context.catalog, name, narHash)
    await clearTheWay(context, narHash)
    return settle(context, await quarantine(context, { ...request, name }, finding), await vouch(context, request.path, finding))
  })
  return job.result
}

/** Puts down what Nix said and whose signatures it has; a tree of this host needs none. */
async function vouch({ settings }: TaskContext, path: string, { proof, measured, facts }: Finding): Promise<Proof> {
  const trust = trustQuestion(settings.trust, metadataOf(measured, facts, null), { askedBy: 'nar-hash', local: true })
  return judgeAgain(proof, { tree: path, trust })
}

async function quarantine({ catalog, content }: TaskContext, { path, name, private: isPrivate = false }: { path: string, name: string | null, private?: boolean | undefined }, { measured, facts, stage }: Finding): Promise<ImageRow> {
  const { narHash } = measured
  catalog.create({ narHash, source: 'import', place: stage === null ? 'nix-store' : 'content', name, note: facts.note })
  if (isPrivate) catalog.setPrivate(narHash, true)
  catalog.transition(narHash, 'start', { reason: `importing ${path}` })
  if (stage !== null) await content.adopt(stage, narHash)
  catalog.describe(narHash, metadataOf(measured, facts, name), measured.manifest, { vouchedBy: facts.info === null ? null : 'nix' })
  return catalog.transition(narHash, 'complete', { reason: stage === null ? 'the tree stays in the Nix store' : 'copied' })
}

function hide(context: TaskContext, { narHash }: ImageRow): ImageRow {
  return makePrivate(context, { ref: { kind: 'nar-hash', narHash }, private: true })
}

function metadataOf({ narHash, narSize, manifestDigest }: Measurement, { info }: NixFacts, name: string | null): ImageMetadata {
  return {
    narHash,
    narSize,
    name,
    manifestDigest,
    storePath: info?.path ?? null,
    references: info?.references ?? [],
    deriver: info?.deriver ?? null,
    ca: info?.ca ?? null,
    signatures: info?.signatures ?? [],
  }
}

function signalOf({ signal }: ImportRequest): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

function report({ onProgress }: ImportRequest, phase: Progress['phase'], bytes: number): void {
  onProgress?.({ narHash: null, phase, bytes, totalBytes: null, bytesPerSecond: 0, peers: [] })
}
