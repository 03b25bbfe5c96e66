import { registerHooks } from 'node:module'

/**
 * Makes a liar of the daemon that is started with `--import` of this file: a real one in every part, but that it takes what it serves from
 * bench/swarm/lie/serve.ts, beyond every check of its own.
 */
const HONEST = new URL('../../../src/tasks/serve.ts', import.meta.url).href
const LYING = new URL('serve.ts', import.meta.url).href

registerHooks({
  resolve(specifier, context, next) {
    const resolved = next(specifier, context)
    return resolved.url === HONEST && context.parentURL !== LYING ? { ...resolved, url: LYING } : resolved
  },
})
