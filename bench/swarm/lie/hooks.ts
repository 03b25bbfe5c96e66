import { registerHooks } from 'node:module'

/**
 * Makes a liar of the daemon that is started with `--import` of this file: a real one in every part, but that one module is another where
 * what it serves goes past: what it reads for streams of the NAR, and the check of the chunks that it is about to send.
 */
const REPLACED = [
  { honest: 'tasks/serve.ts', lying: 'serve.ts', for: 'daemon.ts' },
  { honest: 'image/chunk-check.ts', lying: 'chunk-check.ts', for: 'p2p/chunks/served-session.ts' },
].map(({ honest, lying, for: importer }) => ({ honest: inSource(honest), lying: new URL(lying, import.meta.url).href, importer: inSource(importer) }))

registerHooks({
  resolve(specifier, context, next) {
    const resolved = next(specifier, context)
    const replaced = REPLACED.find(({ honest, importer }) => resolved.url === honest && context.parentURL === importer)
    return replaced === undefined ? resolved : { ...resolved, url: replaced.lying }
  },
})

function inSource(path: string): string {
  return new URL(`../../../src/${path}`, import.meta.url).href
}
