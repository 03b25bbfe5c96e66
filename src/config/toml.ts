import { parse, TomlError } from 'smol-toml'
import { NarvikError } from '../errors.ts'

/** @throws NarvikError `invalid-config` with line and column. */
export function parseToml(text: string, file: string): object {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [reason = 'an error'] = error.message.replace('Invalid TOML document: ', '').split('\n')
    throw new NarvikError('invalid-config', `Cannot read ${file}: found "${reason}" in line ${error.line}, column ${error.column}, needed TOML`, { cause: error })
  }
}

/** Dotted keys with their values; a table where a value should be, or the other way round, comes out as an unknown key. */
export function * leavesOf(table: object, known: readonly string[], prefix = ''): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(table)) {
    const key = prefix + name
    const isGroup = known.some(other => other.startsWith(`${key}.`))
    if (isGroup && isTable(value)) yield * leavesOf(value, known, `${key}.`)
    else yield [key, value]
  }
}

/** The line, from 1, of a key that is written plainly: alone or dotted, at the top or under its table; else that of the table it is in. */
export function lineOf(text: string, key: string): number | undefined {
  let table = ''
  for (const [index, line] of text.split('\n').entries()) {
    const header = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line)
    if (header?.[1] !== undefined) table = header[1]
    const written = header?.[1] ?? /^\s*("?)([\w.-]+)\1\s*=/.exec(line)?.[2]
    const full = header !== null || table === '' ? written : `${table}.${String(written)}`
    if (full === key) return index + 1
  }
  const dot = key.lastIndexOf('.')
  return dot < 0 ? undefined : lineOf(text, key.slice(0, dot))
}

function isTable(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
