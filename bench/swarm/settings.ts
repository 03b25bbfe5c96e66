/** What a run can be scaled by, so that a quick look is quick. */
export interface Settings {
  /** Every size is multiplied by it. */
  readonly scale: number
  /** Hosts that fetch, beside the seed. */
  readonly hosts: number
  /** 10^6 bits per second of each shaped link, each way. */
  readonly mbit: number
  /** How often the receiver is killed. */
  readonly kills: number
  /** Replays the random choices of a run. */
  readonly random: number
}

/** What the figures that are kept are measured with. */
const FULL = { scale: 1, hosts: 8, mbit: 50, kills: 20 }

const VARIABLES = { SWARM_SCALE: 'scale', SWARM_HOSTS: 'hosts', SWARM_MBIT: 'mbit', SWARM_KILLS: 'kills', SWARM_RANDOM: 'random' } as const

/** @throws where a variable is no positive number, or one that begins with `SWARM_` is unknown. */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const settings = { ...FULL, random: Math.floor(Math.random() * 2 ** 31) }
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('SWARM_') || text === undefined) continue
    if (!isVariable(variable)) throw new Error(`Cannot use ${variable}: found no such setting, needed one of ${Object.keys(VARIABLES).join(', ')}`)
    const value = Number(text)
    if (!(value > 0)) throw new Error(`Cannot use ${variable}: found ${text}, needed a number above 0`)
    settings[VARIABLES[variable]] = value
  }
  return settings
}

/** Whether the figures are those that the budgets are about. */
export function isFull(settings: Settings): boolean {
  return (Object.keys(FULL) as (keyof typeof FULL)[]).every(key => settings[key] === FULL[key])
}

/** Bytes of so many MiB, scaled; whole MiB, at least one. */
export function mebibytes(count: number, { scale }: Settings): number {
  return Math.max(1, Math.round(count * scale)) * 1024 * 1024
}

function isVariable(name: string): name is keyof typeof VARIABLES {
  return name in VARIABLES
}
