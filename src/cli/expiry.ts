import type { PublishedNameJson } from '../control/api.ts'

const EXPIRES_SOON_MS = 7 * 24 * 3600 * 1000

/** How long a name is good for: one of which a week is left, or a third of its time where that is less, wants to be published again. */
export function validityOf({ publishedAt, expiresAt }: Pick<PublishedNameJson, 'publishedAt' | 'expiresAt'>, now = Date.now()): 'valid' | 'ending' | 'expired' {
  const left = Date.parse(expiresAt) - now
  if (left <= 0) return 'expired'
  return left < Math.min(EXPIRES_SOON_MS, (Date.parse(expiresAt) - Date.parse(publishedAt)) / 3) ? 'ending' : 'valid'
}
