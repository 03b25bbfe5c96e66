import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { systemCode } from '../errors.ts'

/**
 * What tells whether a program is still the one that it was: the file that its name leads to, through every link of a profile. Null where there is
 * none, so that it has to be run to be told why. Starts no process.
 */
export function programStamp(program: string, env: Readonly<Record<string, string | undefined>>): string | null {
  const places = program.includes('/') ? [program] : (env['PATH'] ?? '').split(delimiter).filter(place => place !== '').map(place => join(place, program))
  for (const place of places) {
    const stamp = stampOfFile(place)
    if (stamp !== null) return stamp
  }
  return null
}

function stampOfFile(place: string): string | null {
  try {
    const file = realpathSync(place)
    const found = statSync(file, { bigint: true })
    if (!found.isFile()) return null
    accessSync(file, constants.X_OK)
    return `${file} ${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`
  } catch (error) {
    if (systemCode(error) === undefined) throw error
    return null
  }
}
