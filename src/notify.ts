import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf, NarvikError } from './errors.ts'

/** Milliseconds for systemd to take a notification: it is only a datagram, and a barrier that it was read. */
const NOTIFY_TIMEOUT_MS = 5000

/**
 * Tells systemd that the daemon is ready, or that it is stopping; nothing where no service manager listens.
 *
 * systemd listens on a Unix datagram socket, which Node can not open, so its own `systemd-notify` sends the message. Run without
 * privileges it can't pass for its parent: the unit has to allow messages from all of its processes (`NotifyAccess=all`).
 * @throws NarvikError `io-error` where systemd-notify is absent or fails; the service then would not come up, or not be seen to.
 */
export async function notifySystemd(event: 'ready' | 'stopping', env: NodeJS.ProcessEnv = process.env): Promise<void> {
  if (!env.NOTIFY_SOCKET) return
  const assignment = event === 'ready' ? 'READY=1' : 'STOPPING=1'
  try {
    await promisify(execFile)('systemd-notify', [assignment], { env, timeout: NOTIFY_TIMEOUT_MS })
  } catch (error) {
    throw new NarvikError('io-error', `Cannot tell systemd ${assignment}: found "${lastWords(error)}", needed systemd-notify to send it`, { cause: error, hint: 'Put systemd-notify on the PATH of the service' })
  }
}

/** What the program itself said, where it ran at all. */
function lastWords(error: unknown): string {
  const said = error instanceof Error && 'stderr' in error && typeof error.stderr === 'string' ? error.stderr.trim() : ''
  return (said === '' ? messageOf(error) : said).split('\n')[0] ?? ''
}
