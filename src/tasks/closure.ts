import { setImmediate } from 'node:timers/promises'
import { NarvikError } from '../errors.ts'
import type { Ref } from '../image/ref.ts'
import { MAX_CLOSURE_PATHS } from '../limits.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow, Registration } from '../store/image-row.ts'

type Lookup = Pick<Catalog, 'getByStorePath' | 'registrations'>

/** A store path of this host's catalog, with the image that it is. */
export interface Member {
  readonly row: ImageRow
  readonly registration: Registration
}

/** A store path with everything that it refers to, as far as this host has proven it. */
export interface Closure {
  /** Verified images, each after those that it refers to; the path that was asked for is the last. */
  readonly members: readonly Member[]
  /** Store paths that are needed and that no verified image has here, sorted. */
  readonly missing: readonly string[]
}

/** Paths that are looked up before others get their turn. */
const TURN = 128

/**
 * Follows the references of a verified image through the catalog.
 * @throws NarvikError `conflict` where paths refer to each other in a circle, `too-large` where there are too many.
 */
export async function findClosure(catalog: Lookup, root: Member): Promise<Closure> {
  const members: Member[] = []
  const missing = new Set<string>()
  const seen = new Map<string, 'open' | 'done'>()
  const stack: { readonly member: Member, readonly left: string[] }[] = []
  const enter = (member: Member): void => {
    const { storePath, references } = member.registration
    seen.set(storePath, 'open')
    stack.push({ member, left: references.filter(reference => reference !== storePath) })
  }
  enter(root)
  for (let step = 1, top = stack.at(-1); top !== undefined; step++, top = stack.at(-1)) {
    if (step % TURN === 0) await setImmediate()
    const next = top.left.pop()
    if (next === undefined) {
      stack.pop()
      seen.set(top.member.registration.storePath, 'done')
      members.push(top.member)
      continue
    }
    if (seen.get(next) === 'open') throw circular(root, next)
    if (seen.has(next) || missing.has(next)) continue
    if (seen.size + missing.size >= MAX_CLOSURE_PATHS) throw tooLarge(root)
    const found = memberAt(catalog, next)
    if (found?.row.state === 'verified') enter(found)
    else missing.add(next)
  }
  return { members, missing: [...missing].sort() }
}

/** The image at a store path, verified or not. */
export function memberAt(catalog: Lookup, storePath: string): Member | undefined {
  const row = catalog.getByStorePath(storePath)
  const registration = row === undefined ? undefined : catalog.registrations(row.narHash).find(one => one.storePath === storePath)
  return row === undefined || registration === undefined ? undefined : { row, registration }
}

/** An image under the store path that it was asked for by, else under its first one; undefined where it has none. */
export function memberOf(catalog: Lookup, row: ImageRow, ref?: Ref): Member | undefined {
  const all = catalog.registrations(row.narHash)
  const registration = ref?.kind === 'store-path' ? all.find(one => one.storePath === ref.storePath) : all[0]
  return registration === undefined ? undefined : { row, registration }
}

function circular({ registration }: Member, at: string): NarvikError {
  return new NarvikError('conflict', `Cannot follow the references of ${registration.storePath}: found that ${at} refers back to itself through others, needed no circle`, {
    hint: 'No Nix makes such paths: whoever this host has the metadata from made it up',
  })
}

function tooLarge({ registration }: Member): NarvikError {
  return new NarvikError('too-large', `Cannot follow the references of ${registration.storePath}: found more than ${MAX_CLOSURE_PATHS} paths, needed fewer`)
}
