import { NarvikError } from '../errors.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import type { ImageRow } from '../store/image-row.ts'
import { verifyTree, type Measurement, type Proof } from '../verify/pipeline.ts'
import { memberAt } from './closure.ts'
import type { TaskContext } from './context.ts'
import { alignRoots, protect } from './gc-roots.ts'
import { importImage, resolveSource, type ImportRequest } from './import-image.ts'
import { inGroups } from './in-groups.ts'
import { makePrivate } from './make-private.ts'
import { nameImage } from './name-image.ts'
import { isStorePath, registrationOf } from './nix-facts.ts'
import { checkName } from './refs.ts'
import { settleAll } from './settle.ts'
import { trustQuestion } from './trust.ts'

/**
 * Imports a store path with everything that it refers to, dependencies first; the name is for the path itself. Nix is
 * asked once for all of it. What is verified here already, as Nix has it, is not read again.
 */
export async function importClosure(context: TaskContext, request: ImportRequest): Promise<ImageRow> {
  const path = await resolveSource(context, request.path)
  if (!context.settings.useNix) throw new NarvikError('refused', `Cannot import the closure of ${path}: found Nix turned off in the config, needed nix.enabled = true`)
  if (!isStorePath(context.nix, path)) {
    throw new NarvikError('invalid-argument', `Cannot import the closure of ${path}: found a path outside ${context.nix.storeDir}, needed a store path`, {
      hint: 'Only store paths refer to others; without --closure any tree can be imported',
    })
  }
  const infos = await askClosure(context, path, request.signal)
  const root = infos.at(-1)
  if (request.name !== undefined && root !== undefined) checkName(context.catalog, request.name, root.narHash)
  const left = infos.filter(info => !isKnown(context, info))
  const firsts = [...new Map(left.map(info => [info.narHash.toNix32(), info])).values()]
  const notes = await protect(context, firsts.map(info => ({ narHash: info.narHash, storePath: info.path })), request.signal)
  try {
    await importAll(context, left, notes, { ...request, path })
  } finally {
    // What did not become an image is not to be kept.
    await alignRoots(context, left.map(({ narHash }) => narHash))
  }
  const row = memberAt(context.catalog, path)?.row
  if (row === undefined) throw new NarvikError('not-found', `Cannot import the closure of ${path}: it was removed meanwhile`)
  // What was here before is to be as private as what has come.
  if (request.private === true) {
    for (const { narHash } of infos) if (context.catalog.get(narHash)?.isPrivate === false) makePrivate(context, { ref: { kind: 'nar-hash', narHash }, private: true })
  }
  return nameImage(context, context.catalog.get(row.narHash) ?? row, request.name)
}

/** The paths of the closure, each after those that it refers to. */
async function askClosure({ nix }: TaskContext, path: string, signal: AbortSignal | undefined): Promise<NixPathInfo[]> {
  const infos = await nix.closureInfo(path, { signal })
  const order: NixPathInfo[] = []
  const seen = new Set<string>()
  const stack: (readonly [string, 'enter' | 'leave'])[] = [[path, 'enter']]
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const info = infos.get(next[0])
    if (info === undefined) throw new NarvikError('nix-failed', `Cannot import the closure of ${path}: found that Nix leaves out ${next[0]}, needed all that is referred to`)
    if (next[1] === 'leave') order.push(info)
    if (next[1] === 'leave' || seen.has(info.path)) continue
    seen.add(info.path)
    stack.push([info.path, 'leave'])
    for (const reference of info.references) if (!seen.has(reference)) stack.push([reference, 'enter'])
  }
  return order
}

/** Whether it is verified here as Nix has it; if so, what Nix says of it is put down. */
function isKnown({ catalog }: TaskContext, info: NixPathInfo): boolean {
  const row = catalog.get(info.narHash)
  if (row?.state !== 'verified') return false
  const known = memberAt(catalog, info.path)
  if (known?.registration.vouchedBy !== 'nix' || !known.row.narHash.equals(info.narHash)) catalog.addStorePath(info.narHash, registrationOf(info))
  return true
}

/** Members that are read at once, or wait for those before them: enough for every thread, and for few transactions. */
const AHEAD = 32

async function importAll(context: TaskContext, infos: readonly NixPathInfo[], notes: ReadonlyMap<string, string>, request: ImportRequest): Promise<void> {
  const total = infos.reduce((sum, { narSize }) => sum + narSize, 0)
  let done = 0
  const proveNext = (info: NixPathInfo, signal: AbortSignal): Promise<Found> => prove(context, info, { ...request, signal: anySignal(signal, request.signal) })
  for await (const group of inGroups(infos, proveNext, { ahead: AHEAD })) {
    await recordAll(context, group, notes, request)
    done += group.reduce((sum, { info }) => sum + info.narSize, 0)
    request.onProgress?.({ narHash: null, phase: 'hashing', bytes: done, totalBytes: total, bytesPerSecond: 0, peers: [] })
  }
}

function anySignal(own: AbortSignal, caller: AbortSignal | undefined): AbortSignal {
  return caller === undefined ? own : AbortSignal.any([own, caller])
}

/** A member of the closure whose tree is what Nix says. */
interface Found {
  readonly info: NixPathInfo
  readonly proof: Proof
  readonly measured: Measurement
}

async function prove({ settings }: TaskContext, info: NixPathInfo, { path, signal }: ImportRequest): Promise<Found> {
  const trust = trustQuestion(settings.trust, registrationOf(info), { askedBy: 'nar-hash', local: true })
  const proof = await verifyTree({ tree: info.path, expected: null, claims: [], trust, alterable: true }, signal === undefined ? {} : { signal })
  const { measured, verdict } = proof
  if (measured === null) throw new NarvikError('changed-while-reading', `Cannot import the closure of ${path}: ${info.path}: ${verdict.reason ?? 'it could not be read'}`)
  if (measured.narHash.equals(info.narHash)) return { info, proof, measured }
  throw new NarvikError('verification-failed', `Cannot import the closure of ${path}: found that ${info.path} is ${measured.narHash.toSri()}, needed ${info.narHash.toSri()} as Nix has it`, {
    hint: `It is damaged in the store: nix-store --repair-path ${info.path}`,
  })
}

/** Those that the catalog has never heard of together; the others, for instance half fetched, each by itself. */
async function recordAll(context: TaskContext, group: readonly Found[], notes: ReadonlyMap<string, string>, request: ImportRequest): Promise<void> {
  const fresh = new Map<string, Found>()
  for (const found of group) {
    const { info } = found
    const key = info.narHash.toNix32()
    const isNew = context.catalog.get(info.narHash) === undefined && context.jobs.find(info.narHash) === undefined
    if (isNew && !fresh.has(key)) {
      fresh.set(key, found)
      continue
    }
    await recordFresh(context, [...fresh.values()], notes, request)
    fresh.clear()
    if (isKnown(context, info)) continue
    await importImage(context, { path: info.path, facts: { info, note: null }, private: request.private, ...request.signal !== undefined && { signal: request.signal } })
  }
  await recordFresh(context, [...fresh.values()], notes, request)
}

async function recordFresh(context: TaskContext, fresh: readonly Found[], notes: ReadonlyMap<string, string>, { path, private: isPrivate = false }: ImportRequest): Promise<void> {
  if (fresh.length === 0) return
  await context.jobs.runTogether('import', fresh.map(({ info }) => info.narHash), () => {
    const noteOf = ({ info }: Found): string | null => notes.get(info.narHash.toNix32()) ?? null
    const proven = context.catalog.together(`import the closure of ${path}`, () => fresh.map(found => ({ row: quarantine(context, found, { closureOf: path, note: noteOf(found), isPrivate }), proof: found.proof, evidence: {} })))
    return settleAll(context, proven)
  })
}

function quarantine({ catalog }: TaskContext, { info, measured }: Found, { closureOf, note, isPrivate }: { closureOf: string, note: string | null, isPrivate: boolean }): ImageRow {
  const { narHash, narSize, manifest, manifestDigest } = measured
  const { storePath, references, deriver, ca, signatures } = registrationOf(info)
  catalog.create({ narHash, source: 'import', place: 'nix-store', note })
  if (isPrivate) catalog.setPrivate(narHash, true)
  catalog.transition(narHash, 'start', { reason: storePath === closureOf ? `importing ${storePath}, with all that it needs` : `importing ${storePath}, which ${closureOf} needs` })
  catalog.describe(narHash, { narHash, narSize, name: null, manifestDigest, storePath, references, deriver, ca, signatures }, manifest, { vouchedBy: 'nix' })
  return catalog.transition(narHash, 'complete', { reason: 'the tree stays in the Nix store' })
}
