import type { Logger } from './log.ts'

/** Resolves with the name of the signal that asks the daemon to end; a second one ends it at once. */
export function untilSignal(logger: Logger): Promise<string> {
  return new Promise(resolve => {
    let asked = false
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => {
        if (asked) {
          logger.warn('ending at once', { signal: name })
          process.exit(1)
        }
        asked = true
        resolve(name)
      })
    }
  })
}

/** Takes SIGHUP from the first moment on, as it would end the process otherwise; one that comes before anybody can act on it is not lost. */
export function countHangups(): { each: (act: () => void) => () => void } {
  let early = 0
  let act = (): void => { early += 1 }
  process.on('SIGHUP', () => { act() })
  return {
    each: next => {
      act = next
      if (early > 0) next()
      return () => { act = () => undefined }
    },
  }
}
