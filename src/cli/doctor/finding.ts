import type { Config } from '../../config.ts'
import type { StatusJson } from '../../control/api.ts'

/** What was looked at, how it is, and what to do where it isn't well. */
export interface Finding {
  readonly check: string
  readonly verdict: 'ok' | 'warn' | 'fail'
  readonly detail: string
  readonly hint: string | null
}

/** What is known of the host: of a daemon that runs its own word, else what the configuration says. */
export interface Host {
  readonly config: Config
  readonly status: StatusJson | undefined
  readonly env: NodeJS.ProcessEnv
}

export function found(check: string, verdict: Finding['verdict'], detail: string, hint: string | null = null): Finding {
  return { check, verdict, detail, hint }
}
