import { NarvikError } from '../errors.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import { publisherId } from '../image/name-record.ts'
import type { RefKind } from '../image/ref.ts'
import type { Logger } from '../log.ts'
import { formatPublicKey } from '../nix/signature.ts'
import type { Content } from '../store/content.ts'
import type { ImageRow } from '../store/image-row.ts'
import { judgeTrust, type TrustAnswer, type TrustQuestion } from '../verify/trust.ts'
import type { TaskContext, TrustSettings } from './context.ts'

type Said = Pick<ImageMetadata, 'storePath' | 'references' | 'ca' | 'signatures'>

/** What the verify pipeline is to ask of an image's signatures. */
export function trustQuestion({ keys, needed }: TrustSettings, said: Said, { askedBy, local, publisher = null }: { askedBy: RefKind, local: boolean, publisher?: string | null }): TrustQuestion {
  const { storePath, references, ca, signatures } = said
  const publishedBy = keys.map(formatPublicKey).find(key => publisherId(key) === publisher) ?? null
  return { storePath, references, ca, signatures, keys, publishedBy, local, needed: local ? 0 : needed[askedBy], neededForPath: needed['store-path'] }
}

/** The question about an image of the catalog, as the policy is now. */
export function trustQuestionOf(settings: TrustSettings, row: ImageRow): TrustQuestion {
  return trustQuestion(settings, row, { askedBy: row.askedBy, local: isLocal(row), publisher: row.publisher })
}

/** Whether this host itself says what it is: it was imported here, before or after it was fetched. */
function isLocal({ source, vouchedBy }: Pick<ImageRow, 'source' | 'vouchedBy'>): boolean {
  return source === 'import' || vouchedBy === 'nix'
}

/**
 * Whether a verified image may be had by whoever asks for it in this way: it may have been fetched in another.
 * @throws NarvikError `refused` where it has too few signatures.
 */
export async function admit(context: Pick<TaskContext, 'settings' | 'content'>, row: ImageRow, askedBy: RefKind): Promise<ImageRow> {
  if (isLocal(row) || row.vouchedBy === 'content-address' || context.settings.trust.needed[askedBy] === 0) return row
  const answer = await judge(context, { ...row, askedBy })
  if (answer === undefined || answer.verdict !== 'fail') return row
  throw policyRefusal(row, answer.detail)
}

export function policyRefusal({ narHash }: Pick<ImageRow, 'narHash'>, detail: string): NarvikError {
  return new NarvikError('refused', `Cannot accept ${narHash.toSri()}: ${detail}`, {
    hint: 'Nothing is wrong with its bytes: trust the key that signed it (trust.keys), or fetch it by its NAR hash',
  })
}

/** Finds out anew who vouches for the images at hand, because other keys may be trusted than at the last start. */
export async function reviewTrust(context: Pick<TaskContext, 'settings' | 'content' | 'catalog'> & { logger: Logger }): Promise<void> {
  const { catalog, logger } = context
  for (const row of catalog.list({ state: 'verified' })) {
    for (const registration of catalog.registrations(row.narHash)) {
      const { storePath, vouchedBy, signatures } = registration
      const isFirst = storePath === row.storePath
      // What follows from the content, or what Nix said here, does not depend on keys; what has no signatures has no more to say.
      if (vouchedBy === 'nix' || vouchedBy === 'content-address' || (isFirst && row.source === 'import')) continue
      if (vouchedBy === null && signatures.length === 0) continue
      // A further path may be a peer's word about an image that was imported here.
      const answer = await judge(context, { ...row, ...registration, source: 'fetch' })
      if (answer === undefined || answer.vouchedBy === vouchedBy) continue
      if (isFirst) catalog.setVouchedBy(row.narHash, answer.vouchedBy)
      else catalog.addStorePath(row.narHash, { ...registration, vouchedBy: answer.vouchedBy })
      logger.info('the keys that are trusted have changed who vouches for a store path', { narHash: row.narHash.toSri(), storePath, vouchedBy: answer.vouchedBy })
    }
  }
}

async function judge({ settings, content }: { settings: TaskContext['settings'], content: Pick<Content, 'visiblePath'> }, row: ImageRow): Promise<TrustAnswer | undefined> {
  const tree = content.visiblePath(row)
  if (tree === null || row.narSize === null) return undefined
  return judgeTrust(trustQuestionOf(settings.trust, row), { tree, narHash: row.narHash, narSize: row.narSize })
}

/** What may be shown of an image's place in a Nix store: a claim that nobody vouches for is told in a note only. */
export function believed({ vouchedBy, storePath, references, deriver, ca, note }: Pick<ImageRow, 'vouchedBy' | 'storePath' | 'references' | 'deriver' | 'ca' | 'note'>) {
  if (vouchedBy !== null || storePath === null) return { storePath, references, deriver, ca, note }
  const claim = `It is said to be ${storePath}, which nobody vouches for: no trusted key signed that, and it does not follow from the content`
  return { storePath: null, references: [], deriver: null, ca: null, note: note === null ? claim : `${note}. ${claim}` }
}
