import { KeyObject } from 'node:crypto'
import { fstatSync } from 'node:fs'
import { inspect } from 'node:util'
import pino from 'pino'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
export type LogFields = Readonly<Record<string, unknown>>

/** What every part logs to: a sentence, and the facts as fields. */
export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A logger that adds `fields` to each line. */
  child(fields: LogFields): Logger
}

export interface LoggerInit {
  readonly level: LogLevel
  /** `json`: a JSON document a line, for a journal. `text`: for a person at a terminal. */
  readonly format: 'json' | 'text'
}

/** A logger that writes to standard error: standard output belongs to what a command answers. */
export function createLogger({ level, format }: LoggerInit): Logger {
  const journal = isJournal(process.env, 2)
  const output = pino.destination({ dest: 2, sync: true })
  const write = (line: string): void => {
    const text = format === 'json' ? line : asText(line, { withTime: !journal })
    output.write(journal ? `${priorityOf(line)}${text}` : text)
  }
  const root = pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: label => ({ level: label }), log: withoutSecrets },
    serializers: { error: pino.stdSerializers.err },
  }, { write })
  return wrap(root)
}

/** Says nothing; for tests and for offline commands. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
}

/** Names under which nothing is ever logged. */
const SECRET_NAMES = /^(fleet|secret|private)_?key$|^(identity|passphrase|password|secret)$/i

/** No part logs a key; should one ever do so by mistake, the line has none: not under such a name, and no bytes and no key object under any. */
function withoutSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, harmless(name, value, 0)]))
}

function harmless(name: string, value: unknown, depth: number): unknown {
  if (SECRET_NAMES.test(name)) return '[not shown]'
  if (value instanceof Uint8Array) return `[${value.byteLength} bytes]`
  if (value instanceof KeyObject) return '[a key]'
  if (typeof value !== 'object' || value === null || value instanceof Error || 'toJSON' in value) return value
  if (depth >= MAX_DEPTH) return '[more]'
  if (Array.isArray(value)) return value.map(item => harmless('', item, depth + 1))
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, harmless(key, item, depth + 1)]))
}

/** Levels of what is logged; nothing that is for people goes so deep. */
const MAX_DEPTH = 6

function wrap(logger: pino.Logger): Logger {
  return {
    debug: (message, fields) => { logger.debug(fields ?? {}, message) },
    info: (message, fields) => { logger.info(fields ?? {}, message) },
    warn: (message, fields) => { logger.warn(fields ?? {}, message) },
    error: (message, fields) => { logger.error(fields ?? {}, message) },
    child: fields => wrap(logger.child(fields)),
  }
}

/** Whether an output, by its number, goes to the journal; which reads a priority before each line. */
export function isJournal({ JOURNAL_STREAM: stream }: NodeJS.ProcessEnv, output: number): boolean {
  if (stream === undefined) return false
  try {
    const { dev, ino } = fstatSync(output)
    return stream === `${dev}:${ino}`
  } catch {
    return false
  }
}

/** The priorities of syslog, as sd-daemon(3) has them. */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { debug: 7, info: 6, warn: 4, error: 3 }

function priorityOf(line: string): string {
  const level = /^{"level":"(\w+)"/.exec(line)?.[1] ?? 'info'
  return `<${PRIORITIES[level as LogLevel]}>`
}

function asText(line: string, { withTime }: { readonly withTime: boolean }): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
  const clock = String(time).slice(11, 19)
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${typeof value === 'string' ? value : inspect(value, { breakLength: Infinity })}`)
  return `${withTime ? `${clock} ` : ''}${String(level).padEnd(5)} ${String(msg)}${rest.join('')}\n`
}
