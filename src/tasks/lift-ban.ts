import { NarvikError } from '../errors.ts'
import type { Ban } from '../p2p/bans.ts'
import type { TaskContext } from './context.ts'

/**
 * Ends the ban of a peer.
 * @throws NarvikError `not-found` where none is in force.
 */
export function liftBan({ node }: Pick<TaskContext, 'node'>, peerId: string): Ban {
  const lifted = node.unban(peerId)
  if (lifted !== undefined) return lifted
  throw new NarvikError('not-found', `Cannot lift the ban of ${peerId}: found none, needed one that is in force`, {
    hint: 'See: narvik peers --banned. Whom the configuration denies, it has to let in',
  })
}
