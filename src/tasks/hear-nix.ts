import { isNarvikError, messageOf } from '../errors.ts'
import type { StageResult } from '../image/verdict.ts'
import { NixError } from '../nix/nix-error.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'

/**
 * What Nix itself finds of the store paths of an image, as `nix store verify` does: that in which its tree is, or those at which it is
 * installed. It reads all of them. Undefined where there is none, or Nix is not to be asked.
 */
export async function hearNix(context: TaskContext, row: ImageRow, signal: AbortSignal): Promise<StageResult | undefined> {
  if (!context.settings.useNix) return undefined
  const started = performance.now()
  const paths = await pathsOf(context, row)
  const findings: Finding[] = []
  for (const path of paths) findings.push(await hear(context, path, signal))
  // What Nix says no to is said first, then what it could not say.
  const [worst] = findings.toSorted((one, other) => ORDER.indexOf(one.verdict) - ORDER.indexOf(other.verdict))
  return worst === undefined ? undefined : { stage: 'nix-store', ...worst, milliseconds: Math.round(performance.now() - started) }
}

type Finding = Pick<StageResult, 'verdict' | 'detail'>
const ORDER = ['fail', 'skipped', 'pass'] as const

async function pathsOf({ content }: TaskContext, { narHash, place, storePath }: ImageRow): Promise<string[]> {
  if (place === 'nix-store') return storePath === null ? [] : [storePath]
  return (await content.roots.installed()).filter(root => root.narHash.equals(narHash)).map(root => root.storePath)
}

async function hear({ nix }: TaskContext, path: string, signal: AbortSignal): Promise<Finding> {
  try {
    const { intact, trusted, said } = await nix.verify(path, { signal })
    if (intact === false) return { verdict: 'fail', detail: `Nix finds ${path} altered in its store: ${said.replace(/^checking '[^']*'\.\.\. /, '')}` }
    return { verdict: 'pass', detail: `Nix finds ${path} intact${trusted === false ? ', and no signature on it by a key that Nix trusts' : ''}` }
  } catch (error) {
    signal.throwIfAborted()
    if (!isNarvikError(error)) throw error
    if (error instanceof NixError && error.kind === 'not-valid') return { verdict: 'fail', detail: `Nix does not have ${path} as a valid path of its store any more` }
    return { verdict: 'skipped', detail: `Nix could not be asked about ${path}: ${messageOf(error)}` }
  }
}
