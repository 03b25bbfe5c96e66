import { format } from 'node:util'
import type { ComponentLogger, Logger as Libp2pLogger } from '@libp2p/interface'
import { messageOf } from '../errors.ts'
import type { Logger } from '../log.ts'

/**
 * Passes what libp2p says of its errors on to the log, at level debug: a dial that fails is everyday life, and yet the cause of a
 * failure is often said nowhere else. The rest is dropped.
 */
export function libp2pLogger(logger: Logger): ComponentLogger {
  return { forComponent: component => component_(component) }

  function component_(component: string): Libp2pLogger {
    const log = (): void => undefined
    return Object.assign(log, {
      enabled: false,
      trace: () => undefined,
      error: (text: unknown, ...values: unknown[]) => { logger.debug(render(text, values), { component }) },
      newScope: (name: string) => component_(`${component}:${name}`),
    })
  }
}

/** libp2p's own letters (%p for a peer id, …) all have a text form. */
function render(text: unknown, values: unknown[]): string {
  if (typeof text !== 'string') return messageOf(text)
  return format(text.replace(/%[peabtmck]/g, '%s'), ...values.map(value => typeof value === 'object' ? messageOf(value) : value))
}
