import { checkConfig, type Setting } from '../config.ts'
import { NarvikError } from '../errors.ts'
import { plural } from './format.ts'
import type { Action } from './outcome.ts'
import { table, type Paint } from './table.ts'

/** Reads the configuration as the daemon would, and says all that is wrong with it; needs no daemon. */
export function configCheck(file: string | undefined, env: NodeJS.ProcessEnv): Action {
  return () => {
    const { file: read, settings, problems } = checkConfig({ ...(file === undefined ? {} : { file }), env })
    const json = {
      file: read,
      valid: problems.length === 0,
      settings: settings.map(({ key, value, place }) => ({ key, value, from: place })),
      problems: problems.map(({ message, hint = null }) => ({ message, hint })),
    }
    const [first] = problems
    if (first === undefined) return Promise.resolve({ json, text: paint => goodView(read, settings, paint) })
    const failure = problems.length === 1 ? first : new NarvikError('invalid-config', `Cannot use the configuration: found ${plural(problems.length, 'mistake')}, needed none`, { hint: 'docs/CONFIG.md has every key' })
    const listed = problems.map(({ message, hint }) => hint === undefined ? message : `${message}; ${hint}`)
    return Promise.resolve({ json, text: () => problems.length === 1 ? '' : listed.join('\n'), failure })
  }
}

function goodView(file: string | null, settings: readonly Setting[], paint: Paint): string {
  const given = settings.filter(({ place }) => place !== 'the default')
  const head = file === null ? 'There is no file; every key that no variable sets has its default.' : `${file} has no mistakes.`
  if (given.length === 0) return head
  return `${head}\n\n${table(['KEY', 'VALUE', 'FROM'], given.map(({ key, value, place }) => [key, JSON.stringify(value), place]), paint)}`
}
