import type { PublishedNameJson } from '../../control/api.ts'
import { validityOf } from '../expiry.ts'
import { formatTime, plural } from '../format.ts'
import { found, type Finding } from './finding.ts'

/** The names that this host has published: who has the key must renew them, as the daemon can't. `names`: all that it knows of; undefined where it doesn't say. */
export function checkNames(names: readonly PublishedNameJson[] | undefined): Finding[] {
  const own = names?.filter(name => name.own) ?? []
  if (own.length === 0) return []
  const ending = own.filter(name => validityOf(name) !== 'valid')
  if (ending.length === 0) return [found('names', 'ok', `${plural(own.length, 'published name')}, none of which expires soon`)]
  return ending.map(name => found(
    'names', 'warn', `${name.name} ${validityOf(name) === 'expired' ? 'expired' : 'expires'} at ${formatTime(name.expiresAt)}`,
    `Publish it again: narvik publish ${name.narHash} --name ${name.name} --key FILE`,
  ))
}
