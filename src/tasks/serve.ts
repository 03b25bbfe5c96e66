import { messageOf, NarvikError } from '../errors.ts'
import { decodeManifest } from '../image/manifest.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { Logger } from '../log.ts'
import { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'
import type { ClosurePath, ClosureSource, ImageDescription, ImageSource } from '../p2p/protocol.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRow } from '../store/image-row.ts'
import type { Content } from '../store/content.ts'
import type { Receiving } from './swarm/receiving.ts'
import { findClosure, memberOf, type Member } from './closure.ts'
import { isDamage } from './read-run.ts'
import type { Uses } from './space/uses.ts'

export interface ServeParts {
  readonly catalog: Catalog
  readonly content: Content
  readonly uses: Pick<Uses, 'hold' | 'serve' | 'isLeaving'>
  readonly receiving: Receiving
  readonly logger: Logger
  /** Called once an image's tree was seen to be no longer what was proven. */
  readonly onDamage: (row: ImageRow, reason: string) => void
}

/** Layouts that are kept ready; one of a large tree takes some tens of megabytes. */
const LAYOUTS_KEPT = 4

/** What peers are served from: verified images only, read through their layout from where they are. */
export function createImageSource({ catalog, content, uses, receiving, logger, onDamage }: ServeParts): ImageSource {
  const layouts = new Map<string, Layout>()

  function layoutOf(narHash: NarHash): Layout | undefined {
    const key = narHash.toNix32()
    const kept = layouts.get(key)
    if (kept !== undefined) return kept
    const manifest = catalog.manifest(narHash)
    if (manifest === undefined) return undefined
    const layout = Layout.describedBy(decodeManifest(manifest))
    const [oldest] = layouts.keys()
    if (layouts.size >= LAYOUTS_KEPT && oldest !== undefined) layouts.delete(oldest)
    layouts.set(key, layout)
    return layout
  }

  async function* read(narHash: NarHash, offset: number, length: number, options: { signal?: AbortSignal }): AsyncGenerator<Uint8Array> {
    const row = served(catalog, narHash)
    const tree = row === undefined ? null : content.visiblePath(row)
    const layout = tree === null ? undefined : layoutOf(narHash)
    if (row === undefined || tree === null || layout === undefined || uses.isLeaving(narHash)) throw new NarvikError('not-found', `Cannot serve ${narHash.toSri()}: it is not verified here`)
    // Before anything is told of it: a range that is none is the peer's affair.
    layout.checkRange(offset, length)
    // Who asks for no byte asks whether the image is here, which is no use of it.
    using serving = length === 0 ? undefined : uses.serve(narHash)
    const signal = AbortSignal.any([options.signal, serving?.signal].filter(one => one !== undefined))
    try {
      const since = row.newestChange === null ? {} : { unchangedSince: row.newestChange }
      yield* readRange(tree, layout, offset, length, { signal, ...since })
    } catch (error) {
      // A file that is gone or of another size is damage that the whole fleet would otherwise be sent.
      if (isDamage(error)) onDamage(row, messageOf(error))
      if (!signal.aborted) logger.warn('cannot serve', { narHash: narHash.toSri(), reason: messageOf(error) })
      throw error
    }
  }

  return {
    describe: narHash => Promise.resolve(uses.isLeaving(narHash) ? undefined : describe({ catalog, receiving }, narHash)),
    read,
  }
}

/** What peers are told of closures: those that are verified here as a whole. */
export function createClosureSource({ catalog, uses, logger }: Pick<ServeParts, 'catalog' | 'logger'> & { readonly uses: Pick<Uses, 'isLeaving'> }): ClosureSource {
  return {
    narSize: narHash => {
      return uses.isLeaving(narHash) ? undefined : served(catalog, narHash)?.narSize ?? undefined
    },
    closure: async narHash => {
      const row = served(catalog, narHash)
      if (row === undefined) return 'not-found'
      const root = memberOf(catalog, row)
      if (root === undefined) return 'incomplete'
      try {
        const { members, missing } = await findClosure(catalog, root)
        const isWhole = missing.length === 0 && members.every(member => !member.row.isPrivate)
        return !isWhole ? 'incomplete' : numbered(members)
      } catch (error) {
        logger.warn('cannot describe a closure', { narHash: narHash.toSri(), reason: messageOf(error) })
        return 'incomplete'
      }
    },
  }
}

function numbered(members: readonly Member[]): ClosurePath[] {
  const numbers = new Map(members.map(({ registration }, number) => [registration.storePath, number]))
  return members.map(({ row, registration: { storePath, references, deriver, ca, signatures } }) => ({
    narHash: row.narHash, narSize: row.narSize ?? 0, storePath, deriver, ca, signatures, manifestDigest: row.manifestDigest,
    references: references.map(reference => numbers.get(reference) ?? 0).sort((a, b) => a - b),
  }))
}

/** The image, if peers may have it: it is verified, and not private. Whatever is sent to a peer, whoever sends it, is asked for here. */
export function served(catalog: Pick<Catalog, 'get'>, narHash: NarHash): ImageRow | undefined {
  const row = catalog.get(narHash)
  return row?.state === 'verified' && !row.isPrivate ? row : undefined
}

/** The image, if peers may have what is proven of it while it is being received in chunks. */
function passedOn({ catalog, receiving }: Pick<ServeParts, 'catalog' | 'receiving'>, narHash: NarHash): ImageRow | undefined {
  const row = catalog.get(narHash)
  return row !== undefined && !row.isPrivate && receiving.get(narHash)?.manifestDigest === row.manifestDigest ? row : undefined
}

function describe(parts: Pick<ServeParts, 'catalog' | 'receiving'>, narHash: NarHash): ImageDescription | undefined {
  const { catalog } = parts
  const row = served(catalog, narHash) ?? passedOn(parts, narHash)
  if (row === undefined || row.narSize === null) return undefined
  const verified = row.state === 'verified'
  const manifest = catalog.manifest(narHash)
  if (manifest === undefined) return undefined
  const { narSize, storePath, references, deriver, ca, signatures, name, manifestDigest } = row
  return { verified, metadata: { narHash, narSize, storePath, references, deriver, ca, signatures, name, manifestDigest }, manifest }
}
