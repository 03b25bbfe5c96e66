// Writes the documents that are made from the code: limits, errors, and the keys of the configuration. Tests compare them.
import { readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { renderConfigPage, renderExample } from './config-docs.ts'
import { row } from './markdown-row.ts'
import { ERROR_CODES } from '../src/errors.ts'
import { REASONS, STAGE_REASONS } from '../src/image/reasons.ts'
import * as limits from '../src/limits.ts'

const ROOT = new URL('../', import.meta.url)

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(new URL('docs/LIMITS.md', ROOT), renderLimits())
  writeFileSync(new URL('docs/ERRORS.md', ROOT), renderErrors())
  writeFileSync(new URL('docs/REASONS.md', ROOT), renderReasons())
  writeFileSync(new URL('docs/CONFIG.md', ROOT), renderConfigPage())
  writeFileSync(new URL('config/narvik.example.toml', ROOT), renderExample())
}

/** The text of docs/LIMITS.md: the meaning of each limit is the comment above it. */
export function renderLimits(): string {
  const meanings = limitMeanings(readFileSync(new URL('src/limits.ts', ROOT), 'utf8'))
  const rows = Array.from(meanings, ([name, meaning]) => row([`\`${name}\``, valueText(name, valueOf(name)), meaning]))
  return `# Limits

Every bound of Narvik. They are constants of [src/limits.ts](../src/limits.ts), which this page is made from
(\`node scripts/docs.ts\`); those that an operator may want to change are keys of the configuration file.
Sizes are in bytes, times in milliseconds.

${row(['limit', 'value', 'meaning'])}
${row(['---', '---', '---'])}
${rows.join('\n')}
`
}

/** The text of docs/ERRORS.md. */
export function renderErrors(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, { exit, http, meaning }]) => row([`\`${code}\``, String(exit), String(http), meaning]))
  return `# Errors

Every kind of failure that Narvik reports, made from [src/errors.ts](../src/errors.ts) (\`node scripts/docs.ts\`). The code is
what a script may rely on; the message and the hint are for people. \`narvik\` ends with the exit code, the control API
answers with the HTTP status, and both give the same document:

\`\`\`json
{"error":{"code":"not-found","message":"Cannot find web: found no such image in the catalog, needed the NAR hash, store path or name of one","hint":"See \`narvik list\` for what this host has"}}
\`\`\`

${row(['code', 'exit', 'http', 'meaning'])}
${row(['---', '---', '---', '---'])}
${rows.join('\n')}

An exit code says what sort of failure it was: 0 done, 1 failed, 2 wrong usage, 3 daemon not reachable, 4 not found,
5 verification failed, 6 refused by policy, 7 timed out.
`
}

/** The text of docs/REASONS.md. */
export function renderReasons(): string {
  const reasons = Object.entries(REASONS).map(([code, { meaning, next }]) => row([`\`${code}\``, meaning, next]))
  const stages = Object.entries(STAGE_REASONS).map(([stage, code]) => row([`\`${stage}\``, `\`${code}\``]))
  return `# Reasons

Why an image is not verified, as a code that scripts may rely on: \`reasonCode\` of an image, \`code\` of a journal entry and of an event, the label
\`reason\` of the metrics. Made from [src/image/reasons.ts](../src/image/reasons.ts) (\`node scripts/docs.ts\`). A try that an error ended has the code of
that error in its place ([ERRORS.md](ERRORS.md)): \`no-provider\`, \`peer-failed\`, \`disk-full\` and so on.

${row(['code', 'meaning', 'what to do'])}
${row(['---', '---', '---'])}
${reasons.join('\n')}

An image is rejected by the first stage of the verify pipeline that fails:

${row(['stage', 'code'])}
${row(['---', '---'])}
${stages.join('\n')}
`
}

/** The names in the order of the file, each with its comment; one without has that of the name above it. */
function limitMeanings(source: string): Map<string, string> {
  const meanings = new Map<string, string>()
  let comment = ''
  for (const [, text, name] of source.matchAll(/\/\*\*(.*?)\*\/|^export const (\w+)/gms)) {
    if (text !== undefined) comment = text.replace(/\n\s*\*/g, ' ').replace(/\s+/g, ' ').trim()
    else if (name !== undefined) meanings.set(name, comment)
  }
  return meanings
}

function valueOf(name: string): number {
  const value: unknown = Object.entries(limits).find(([key]) => key === name)?.[1]
  if (typeof value !== 'number') throw new TypeError(`${name} is no number that src/limits.ts exports`)
  return value
}

/** The number, and a rounder form of it where there is one. */
function valueText(name: string, value: number): string {
  const units = name.endsWith('_MS')
    ? { h: 3_600_000, min: 60_000, s: 1000 }
    : { TiB: 1024 ** 4, GiB: 1024 ** 3, MiB: 1024 ** 2, KiB: 1024 }
  const inBytes = name.endsWith('_BYTES') || name.endsWith('_SIZE')
  if (!name.endsWith('_MS') && !inBytes) return String(value)
  const unit = Object.entries(units).find(([, size]) => value >= size && value % size === 0)
  return unit === undefined ? String(value) : `${value} (${value / unit[1]} ${unit[0]})`
}
