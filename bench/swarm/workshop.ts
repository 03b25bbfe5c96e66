import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { killAll } from './namespace.ts'

const PREFIX = 'narvik-swarm-'

/**
 * Makes the directory of this run, and has it removed, with everything that was started, however the run ends. Where a run was ended in a
 * way that leaves no time for that, its processes ended with it, and the next run removes its directory.
 */
export function openWorkshop(): string {
  if (process.getuid?.() !== 0) {
    throw new Error('Cannot build networks: found a user, needed root, who may make network namespaces and shape their links; run it with sudo, or in a virtual machine of your own')
  }
  sweep()
  const dir = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`))
  process.on('exit', () => {
    killAll()
    rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  })
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const) process.on(signal, () => { process.exit(code) })
  return dir
}

/** @throws where the disk has no room for what a scenario keeps at its height. */
export async function requireSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir)
  if (bavail * bsize >= bytes) return
  const gib = (count: number): string => `${(count / 1024 ** 3).toFixed(1)} GiB`
  throw new Error(`Cannot run: found ${gib(bavail * bsize)} free in ${dir}, needed ${gib(bytes)}; name another place with TMPDIR, or scale the run down with SWARM_SCALE`)
}

/** The last lines of each log in the directory; it is gone when somebody could look for them. */
export function lastWords(dir: string): string[] {
  const logs = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.log'))
  return logs.flatMap(name => readFileSync(join(dir, name), 'utf8').trim().split('\n').filter(line => line !== '').slice(-5).map(line => `${name}: ${line}`))
}

/** Removes what runs have left that are no more. */
function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1]
    if (pid !== undefined && !isRunning(Number(pid))) rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
