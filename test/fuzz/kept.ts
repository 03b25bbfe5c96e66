import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** Inputs that are kept, a line each: base64, and behind a `#` what was found with it. */
export type Collection = 'corpus' | 'regressions'

function fileOf(collection: Collection, target: string): string {
  return new URL(`${collection}/${target}.txt`, import.meta.url).pathname
}

export function readKept(collection: Collection, target: string): Uint8Array[] {
  const file = fileOf(collection, target)
  if (!existsSync(file)) return []
  const lines = readFileSync(file, 'utf8').split('\n').filter(line => line !== '')
  return lines.map(line => Uint8Array.from(Buffer.from(line.split('#')[0]?.trim() ?? '', 'base64')))
}

export function writeCorpus(target: string, inputs: readonly Uint8Array[]): void {
  const file = fileOf('corpus', target)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, inputs.map(bytes => `${Buffer.from(bytes).toString('base64')}\n`).sort().join(''))
}

export function addRegression(target: string, bytes: Uint8Array, what: string): void {
  const file = fileOf('regressions', target)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${Buffer.from(bytes).toString('base64')} # ${what.replaceAll(/\s+/g, ' ').slice(0, 200)}\n`, { flag: 'a' })
}
