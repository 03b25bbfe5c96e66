import { existsSync, readFileSync } from 'node:fs'
import { delimiter, join, relative } from 'node:path'

const ROOT = join(import.meta.dirname, '..', '..')

export function version(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  return version
}

/** What to type to run this command line again: its name where it is on PATH, else the way to it. */
export function ownName(env: NodeJS.ProcessEnv, directory: string): string {
  const onPath = (env.PATH ?? '').split(delimiter).some(folder => folder !== '' && existsSync(join(folder, 'narvik')))
  if (onPath) return 'narvik'
  const path = join(ROOT, 'bin', 'narvik')
  const short = relative(directory, path)
  return short.startsWith('..') ? path : short
}
