import { execFile } from 'node:child_process'
import { access, constants, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { formatBytes } from '../../byte-size.ts'
import { messageOf, systemCode } from '../../errors.ts'
import { found, type Finding, type Host } from './finding.ts'

/** Bytes free below which a fetch of any real image fails, and below which it soon may. */
const FULL_BYTES = 256 * 1024 ** 2
const NEARLY_FULL_BYTES = 5 * 1024 ** 3
/** A clock that shows an earlier time than this release was never set; milliseconds since 1970. */
const RELEASED = Date.UTC(2026, 0, 1)

/** Records in the DHT carry times: a host whose clock is minutes off neither believes others nor is believed. */
export async function checkClock(): Promise<Finding> {
  if (Date.now() < RELEASED) return found('clock', 'fail', `it shows ${new Date().toISOString()}, before this program was made`, 'Set the clock: timedatectl set-ntp true')
  const hint = 'Turn time synchronisation on: timedatectl set-ntp true'
  try {
    const { stdout } = await promisify(execFile)('timedatectl', ['show', '--property=NTPSynchronized', '--value'], { timeout: 5000 })
    return stdout.trim() === 'yes' ? found('clock', 'ok', 'synchronised') : found('clock', 'warn', 'not synchronised: records of hosts more than 5 minutes apart are refused', hint)
  } catch {
    return found('clock', 'warn', 'nobody here says whether it is synchronised (timedatectl)', 'Check that chrony, ntpd or systemd-timesyncd runs')
  }
}

export async function checkDisk(host: Host): Promise<Finding> {
  const dataDir = host.status?.dataDir ?? host.config.dataDir
  try {
    const { bavail, bsize } = await statfs(await nearestThere(dataDir))
    const free = bavail * bsize
    const detail = `${formatBytes(free)} free in ${dataDir}`
    const { paused = null } = host.status ?? {}
    if (paused !== null) return found('disk', 'fail', `fetches are paused: ${paused}`, 'Make room: narvik gc --dry-run --free 20GiB says what would go, narvik gc --free 20GiB lets it go')
    if (free < FULL_BYTES) return found('disk', 'fail', detail, 'Make room: narvik list, narvik rm REF')
    if (free < NEARLY_FULL_BYTES) return found('disk', 'warn', detail, 'Make room before the next fetch: narvik list, narvik rm REF')
    return found('disk', 'ok', detail)
  } catch (error) {
    return found('disk', 'fail', messageOf(error), `Check that the disk of ${dataDir} is mounted`)
  }
}

/** Of what is there: who may read the secrets, and whether the one who runs this may write. */
export async function checkPermissions(host: Host): Promise<Finding[]> {
  const dataDir = host.status?.dataDir ?? host.config.dataDir
  const socket = host.status?.socket ?? host.config.socket
  const findings = await Promise.all([
    checkMode(dataDir, 0o022, 'others can write the data directory, and the daemon refuses it', `chmod go-w ${dataDir}`),
    checkMode(join(dataDir, 'identity.key'), 0o077, 'the host\'s key can be read by others', 'Make a new one: stop the daemon, remove the file, start the daemon'),
    checkMode(join(dataDir, 'quarantine'), 0o077, 'what is not proven can be reached by others', `chmod 700 ${join(dataDir, 'quarantine')}`),
    checkMode(dirname(socket), 0o022, 'others can write the directory of the control socket', `chmod go-w ${dirname(socket)}`),
    host.status === undefined ? checkWritable(dataDir) : undefined,
  ])
  const bad = findings.filter(finding => finding !== undefined)
  return bad.length > 0 ? bad : [found('permissions', 'ok', `${dataDir} and ${dirname(socket)} are closed to others where they must be`)]
}

async function checkMode(path: string, forbidden: number, fault: string, hint: string): Promise<Finding | undefined> {
  try {
    const { mode } = await stat(path)
    return (mode & forbidden) === 0 ? undefined : found('permissions', 'fail', `${path} has mode ${(mode & 0o7777).toString(8)}: ${fault}`, hint)
  } catch (error) {
    // What isn't there yet the daemon makes as it must be; what this user may not enter is closed.
    return ['ENOENT', 'EACCES'].includes(systemCode(error) ?? '') ? undefined : found('permissions', 'fail', messageOf(error), hint)
  }
}

async function checkWritable(dataDir: string): Promise<Finding | undefined> {
  const place = await nearestThere(dataDir)
  try {
    await access(place, constants.W_OK)
    return undefined
  } catch (error) {
    const readOnly = systemCode(error) === 'EROFS'
    return found('permissions', readOnly ? 'fail' : 'warn', `this user can not write ${place}: ${messageOf(error)}`, readOnly ? 'The disk is mounted read-only: see the kernel\'s log, then mount -o remount,rw' : 'Run this as the user of the daemon, or as root')
  }
}

async function nearestThere(path: string): Promise<string> {
  try {
    await stat(path)
    return path
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' || path === '/') throw error
    return nearestThere(dirname(path))
  }
}
