import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { fromSystemError, messageOf, NarvikError } from '../errors.ts'
import type { Action } from './outcome.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const UNIT = '/etc/systemd/system/narvikd.service'
const SYSUSERS = '/etc/sysusers.d/narvik.conf'

export interface InstallServiceOptions {
  /** Only shows the unit. */
  readonly print?: boolean
  /** Root of the system that it is put into; `/` where absent. */
  readonly prefix?: string
}

/** Puts the systemd unit of this program in place, and makes the user that it runs as; needs no daemon. */
export function installService({ print = false, prefix = '/' }: InstallServiceOptions): Action {
  return async () => {
    const unit = (await readFile(join(ROOT, 'config/narvikd.service'), 'utf8')).replace(/^ExecStart=.*$/m, `ExecStart=${join(ROOT, 'bin/narvik')} daemon`)
    if (print) return { json: { unit }, text: () => unit.trimEnd() }
    const files = { [join(prefix, UNIT)]: unit, [join(prefix, SYSUSERS)]: await readFile(join(ROOT, 'config/narvik.sysusers.conf'), 'utf8') }
    for (const [file, text] of Object.entries(files)) await put(file, text)
    if (prefix === '/') {
      await run('systemd-sysusers')
      await run('systemctl', 'daemon-reload')
    }
    const written = Object.keys(files)
    return { json: { written }, text: () => `wrote ${written.join(' and ')}\n\nNext: systemctl enable --now narvikd, then narvik doctor` }
  }
}

async function put(file: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, text)
  } catch (error) {
    throw fromSystemError(error, `write ${file}`)
  }
}

async function run(program: string, ...args: string[]): Promise<void> {
  try {
    await promisify(execFile)(program, args)
  } catch (error) {
    throw new NarvikError('io-error', `Cannot put the service in place: ${program} ${args.join(' ')} failed: ${messageOf(error)}`, { cause: error, hint: 'Run this as root, on a host with systemd' })
  }
}
