/** What a soak can be changed by. */
export interface Settings {
  readonly minutes: number
  readonly hosts: number
  /** Replays the random choices; what comes of them depends on the machine. */
  readonly random: number
}

const VARIABLES = { SOAK_MINUTES: 'minutes', SOAK_HOSTS: 'hosts', SOAK_RANDOM: 'random' } as const
const LEAST = { minutes: 0.1, hosts: 3, random: 0 }
/** A soak that is shorter says little, and is not kept. */
export const FULL_MINUTES = 30

/** @throws where a variable is too small or no number, or one that begins with `SOAK_` is unknown. */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const settings = { minutes: FULL_MINUTES, hosts: 6, random: Math.floor(Math.random() * 2 ** 31) }
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('SOAK_') || text === undefined) continue
    if (!isVariable(variable)) throw new Error(`Cannot use ${variable}: found no such setting, needed one of ${Object.keys(VARIABLES).join(', ')}`)
    const key = VARIABLES[variable]
    const value = Number(text)
    if (!(value >= LEAST[key])) throw new Error(`Cannot use ${variable}: found ${text}, needed a number of at least ${LEAST[key]}`)
    settings[key] = value
  }
  return settings
}

function isVariable(name: string): name is keyof typeof VARIABLES {
  return name in VARIABLES
}
