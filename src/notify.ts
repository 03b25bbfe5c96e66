import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf, NarvikError } from './errors.ts'
import type { Logger } from './log.ts'

/** Milliseconds for systemd to take a notification: it is only a datagram, and a barrier that it was read. */
const NOTIFY_TIMEOUT_MS = 5000
/** Milliseconds between two status lines where no watchdog asks for more. */
const STATUS_INTERVAL_MS = 20_000

const ASSIGNMENTS = { ready: 'READY=1', stopping: 'STOPPING=1', reloading: 'RELOADING=1', alive: 'WATCHDOG=1' } as const

/**
 * Tells systemd how the daemon is, with a line for `systemctl status` where there is one; nothing where no service manager listens.
 *
 * systemd listens on a Unix datagram socket, which Node can not open, so its own `systemd-notify` sends the message. Run without
 * privileges it can't pass for its parent: the unit has to allow messages from all of its processes (`NotifyAccess=all`).
 * @throws NarvikError `io-error` where systemd-notify is absent or fails; the service then would not come up, or not be seen to.
 */
export async function notifySystemd(event: keyof typeof ASSIGNMENTS, env: NodeJS.ProcessEnv = process.env, status?: string): Promise<void> {
  if (!env.NOTIFY_SOCKET) return
  const assignment = ASSIGNMENTS[event]
  // Systemd takes a reload for finished when it is ready at a later time than this.
  const since = event === 'reloading' ? [`MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`] : []
  try {
    await promisify(execFile)('systemd-notify', [assignment, ...since, ...(status === undefined ? [] : [`STATUS=${status}`])], { env, timeout: NOTIFY_TIMEOUT_MS })
  } catch (error) {
    throw new NarvikError('io-error', `Cannot tell systemd ${assignment}: found "${lastWords(error)}", needed systemd-notify to send it`, { cause: error, hint: 'Put systemd-notify on the PATH of the service' })
  }
}

export interface HeartbeatComponents {
  /** Throws where the daemon is not what it should be; systemd is then told nothing, and ends it. */
  readonly check: () => void
  /** One line about what goes on. */
  readonly status: () => string
  readonly logger: Logger
}

/**
 * Tells systemd again and again that the daemon is alive, at a third of the time after which its watchdog bites. The timer
 * is proof of the event loop, `check` of the rest. Returns how to stop that.
 */
export function startHeartbeat({ check, status, logger }: HeartbeatComponents, env: NodeJS.ProcessEnv = process.env): () => void {
  if (!env.NOTIFY_SOCKET) return () => undefined
  const watchdogUsec = Number(env.WATCHDOG_USEC ?? 0)
  const intervalMs = watchdogUsec > 0 ? watchdogUsec / 3000 : STATUS_INTERVAL_MS
  const beat = async (): Promise<void> => {
    try {
      check()
      await notifySystemd('alive', env, status())
    } catch (error) {
      logger.error('cannot say that all is well', { reason: messageOf(error) })
    }
  }
  void beat()
  const timer = setInterval(() => { void beat() }, intervalMs)
  timer.unref()
  return () => { clearInterval(timer) }
}

/** What the program itself said, where it ran at all. */
function lastWords(error: unknown): string {
  const said = error instanceof Error && 'stderr' in error && typeof error.stderr === 'string' ? error.stderr.trim() : ''
  return (said === '' ? messageOf(error) : said).split('\n')[0] ?? ''
}
