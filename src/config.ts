import { readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parse as parseToml, TomlError } from 'smol-toml'
import { z } from 'zod'
import { BYTE_SIZE_FORM, parseByteSize } from './byte-size.ts'
import { fromSystemError, NarvikError, systemCode } from './errors.ts'
import { MAX_CONFIG_BYTES, MAX_MIN_COPIES, MAX_TRUSTED_KEYS, NIX_QUERY_TIMEOUT_MS, STREAM_STALL_MS } from './limits.ts'
import { LOG_LEVELS } from './log.ts'
import { explainMismatch } from './mismatch.ts'

const path = z.string().regex(/^\/[^\0]*$/, 'an absolute path').max(4096)
const listenAddress = z.string().refine(isListenAddress, 'a multiaddr such as /ip4/127.0.0.1/tcp/4650')
const peerAddress = z.string().max(512).regex(/^\/(ip4|ip6|dns|dns4|dns6)\/[^/]+\/tcp\/\d{1,5}\/p2p\/[1-9A-Za-z]+$/, 'a multiaddr with a peer id, such as /dns4/host/tcp/4650/p2p/12D3…')
const publicKey = z.string().max(512).regex(/^[\x21-\x39\x3b-\x7e]{1,255}:[A-Za-z0-9+/]{43}=$/, 'a public key as Nix writes it, such as fleet-1:6NCH…Y=')
const signatureCount = z.int().min(0).max(MAX_TRUSTED_KEYS)
const byteSize = z.union([z.int().min(0), z.string().max(64)], 'a number of bytes, or text').transform((value, context) => {
  const bytes = typeof value === 'number' ? value : parseByteSize(value)
  if (bytes !== undefined) return bytes
  context.addIssue({ code: 'custom', message: BYTE_SIZE_FORM })
  return z.NEVER
})
const seconds = z.number().positive().max(7 * 24 * 3600)

/** Every key of the configuration. A key is written in snake_case in the file: `data_dir`, `nix.bin_dir`. */
const configSchema = z.strictObject({
  /** Where the host's key, the catalog and the images are. */
  dataDir: path,
  /** The control socket. */
  socket: path,
  /** Multiaddrs to listen on; beyond loopback only with a fleet key or `allowOpen`. */
  listen: z.array(listenAddress).max(16).readonly(),
  /** Multiaddrs of peers that are dialled until they answer. */
  bootstrap: z.array(peerAddress).max(256).readonly(),
  /** Whether peers on the same LAN are looked for. */
  mdns: z.boolean(),
  /** File with the fleet's key; null where this host is in no fleet. */
  fleetKeyFile: path.nullable(),
  /** Whether `listen` may go beyond loopback without a fleet key. */
  allowOpen: z.boolean(),
  log: z.strictObject({
    level: z.enum(LOG_LEVELS),
    format: z.enum(['json', 'text']),
  }),
  nix: z.strictObject({
    /** Whether Nix is asked about store paths, where it is installed. */
    enabled: z.boolean(),
    /** Directory with the `nix` program; null for the one on PATH. */
    binDir: path.nullable(),
    /** Bytes of the NAR up to which an imported tree is added to the Nix store; 0 for never. */
    storeAddMaxBytes: z.int().min(0),
    queryTimeoutSeconds: seconds,
  }),
  trust: z.strictObject({
    /** Public keys whose signatures count, in Nix's format. */
    keys: z.array(publicKey).max(MAX_TRUSTED_KEYS).readonly(),
    /** Different trusted keys that must have signed an image that is fetched by its NAR hash. */
    signaturesByHash: signatureCount,
    /** The same for an image that is fetched by its store path; as many make a store path believed. */
    signaturesByStorePath: signatureCount,
    /** The same for an image that is fetched by a name that another host published. */
    signaturesByName: signatureCount,
  }),
  fetch: z.strictObject({
    /** Seconds to go on looking for a provider where the request gives no timeout. */
    providerWaitSeconds: seconds,
    /** Seconds without a byte after which a provider is given up for the next. */
    stallSeconds: seconds,
  }),
  space: z.strictObject({
    /** What Narvik may take on disk for itself; null for as much as there is. */
    quota: byteSize.nullable(),
    /** What must be free on the disk for fetches to go on; 0 for nothing. */
    minFree: byteSize,
    /** Copies that must be left elsewhere in the fleet when an image is collected here. */
    minCopies: z.int().min(0).max(MAX_MIN_COPIES),
  }),
})
export type Config = Readonly<z.output<typeof configSchema>>

/** What the command line may set; relative paths are relative to the working directory. */
export type ConfigFlags = Partial<Pick<Config, 'dataDir' | 'socket' | 'listen' | 'bootstrap' | 'mdns' | 'fleetKeyFile'>>

export interface ConfigSources {
  /** A file that must exist. Without it `NARVIK_CONFIG` names one, or the file in its usual place is read if it is there. */
  readonly file?: string
  readonly flags?: ConfigFlags
  readonly env: NodeJS.ProcessEnv
  /** The user id; by default the one of this process. */
  readonly uid?: number
}

/**
 * The configuration: flags over environment variables (`NARVIK_` and the key in capitals, dots as `_`) over the file over the
 * defaults. No key that is unknown passes, whichever place it came from.
 * @throws NarvikError `invalid-config` with the key, the line and what it should be; `not-found` for a file that was named.
 */
export function loadConfig({ file, flags = {}, env, uid = process.getuid?.() ?? 0 }: ConfigSources): Config {
  const home = { env, uid }
  const settings = new Map<string, Setting>()
  for (const setting of [...readFile(file, home), ...readEnvironment(env), ...readFlags(flags)]) settings.set(setting.key, setting)
  const dataDir = settings.get('data_dir')?.value
  const defaults = defaultConfig(typeof dataDir === 'string' ? { ...home, dataDir } : home)
  return check(settings, defaults)
}

/** The configuration without file, variables or flags; its paths follow the user and what systemd set up. */
export function defaultConfig({ env, uid, dataDir = defaultDataDir(env, uid) }: Home & { readonly dataDir?: string }): Config {
  return {
    dataDir,
    socket: defaultSocket(env, uid, dataDir),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: true,
    fleetKeyFile: null,
    allowOpen: false,
    log: { level: 'info', format: env.JOURNAL_STREAM === undefined || process.stderr.isTTY ? 'text' : 'json' },
    nix: { enabled: true, binDir: null, storeAddMaxBytes: 256 * 1024 ** 2, queryTimeoutSeconds: NIX_QUERY_TIMEOUT_MS / 1000 },
    trust: { keys: [], signaturesByHash: 0, signaturesByStorePath: 1, signaturesByName: 1 },
    fetch: { providerWaitSeconds: 60, stallSeconds: STREAM_STALL_MS / 1000 },
    space: { quota: null, minFree: 1024 ** 3, minCopies: 1 },
  }
}

/** Every key as it is written in the file, in the order of the schema. */
export const CONFIG_KEYS: readonly string[] = keysOf(configSchema.shape)

/** The environment variable that sets a key. */
export function environmentName(key: string): string {
  return `NARVIK_${key.toUpperCase().replaceAll('.', '_')}`
}

interface Home {
  readonly env: NodeJS.ProcessEnv
  readonly uid: number
}

/** A value with the place it came from, for the message if it is wrong. */
interface Setting {
  readonly key: string
  readonly value: unknown
  readonly place: string
}

/** Where a daemon of the whole host keeps its things; a user who has none of their own may speak to it. */
export const SYSTEM_SOCKET = '/run/narvik/narvik.sock'

function defaultDataDir(env: NodeJS.ProcessEnv, uid: number): string {
  if (env.STATE_DIRECTORY) return env.STATE_DIRECTORY
  if (uid === 0) return '/var/lib/narvik'
  return join(env.XDG_DATA_HOME ?? join(env.HOME ?? homedir(), '.local/share'), 'narvik')
}

function defaultSocket(env: NodeJS.ProcessEnv, uid: number, dataDir: string): string {
  if (env.RUNTIME_DIRECTORY) return join(env.RUNTIME_DIRECTORY, 'narvik.sock')
  if (uid === 0) return SYSTEM_SOCKET
  return join(env.XDG_RUNTIME_DIR ?? dataDir, 'narvik.sock')
}

function defaultFile(env: NodeJS.ProcessEnv, uid: number): string {
  if (uid === 0 || env.STATE_DIRECTORY) return '/etc/narvik/narvik.toml'
  return join(env.XDG_CONFIG_HOME ?? join(env.HOME ?? homedir(), '.config'), 'narvik/narvik.toml')
}

function readFile(file: string | undefined, { env, uid }: Home): Setting[] {
  const named = file ?? (env.NARVIK_CONFIG === '' ? undefined : env.NARVIK_CONFIG)
  const place = named === undefined ? defaultFile(env, uid) : resolve(named)
  try {
    const { size } = statSync(place)
    if (size > MAX_CONFIG_BYTES) {
      throw new NarvikError('invalid-config', `Cannot read ${place}: found ${size} bytes, needed at most ${MAX_CONFIG_BYTES}`)
    }
    return fileSettings(readFileSync(place, 'utf8'), place)
  } catch (error) {
    if (named === undefined && systemCode(error) === 'ENOENT') return []
    throw fromSystemError(error, `read the configuration ${place}`)
  }
}

function fileSettings(text: string, file: string): Setting[] {
  const settings: Setting[] = []
  for (const [key, value] of leavesOf(parse(text, file))) {
    const line = lineOf(text, key)
    const place = line === undefined ? file : `${file}, line ${line}`
    if (!CONFIG_KEYS.includes(key)) throw unknownKey(key, place, CONFIG_KEYS)
    settings.push({ key, value, place })
  }
  return settings
}

function parse(text: string, file: string): object {
  try {
    return parseToml(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [reason = 'an error'] = error.message.replace('Invalid TOML document: ', '').split('\n')
    throw new NarvikError('invalid-config', `Cannot read ${file}: found "${reason}" in line ${error.line}, column ${error.column}, needed TOML`, { cause: error })
  }
}

/** Dotted keys with their values; a table where a value should be, or the other way round, comes out as an unknown key. */
function * leavesOf(table: object, prefix = ''): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(table)) {
    const key = prefix + name
    const isGroup = CONFIG_KEYS.some(known => known.startsWith(`${key}.`))
    if (isGroup && isTable(value)) yield * leavesOf(value, `${key}.`)
    else yield [key, value]
  }
}

function isTable(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** The line of a key that is written plainly: alone or dotted, at the top or under its table. */
function lineOf(text: string, key: string): number | undefined {
  let table = ''
  for (const [index, line] of text.split('\n').entries()) {
    const header = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line)
    if (header?.[1] !== undefined) table = header[1]
    const written = header?.[1] ?? /^\s*("?)([\w.-]+)\1\s*=/.exec(line)?.[2]
    const full = header !== null || table === '' ? written : `${table}.${String(written)}`
    if (full === key) return index + 1
  }
  return undefined
}

function readEnvironment(env: NodeJS.ProcessEnv): Setting[] {
  const keys = new Map(CONFIG_KEYS.map(key => [environmentName(key), key]))
  const settings: Setting[] = []
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('NARVIK_') || variable === 'NARVIK_CONFIG' || text === undefined || text === '') continue
    const key = keys.get(variable)
    if (key === undefined) throw unknownKey(variable, 'the environment', [...keys.keys(), 'NARVIK_CONFIG'])
    settings.push({ key, value: fromText(text, schemaOf(key)), place: variable })
  }
  return settings
}

/** The value that a variable's text stands for; text that fits no other type stays text, and the schema refuses it. */
function fromText(text: string, schema: z.ZodType): unknown {
  if (schema.safeParse([]).success) return text.split(',').map(part => part.trim()).filter(part => part !== '')
  if (schema.safeParse(true).success && (text === 'true' || text === 'false')) return text === 'true'
  if (schema.safeParse(1).success && /^\d+(\.\d+)?$/.test(text)) return Number(text)
  return text
}

function readFlags({ dataDir, socket, fleetKeyFile, ...rest }: ConfigFlags): Setting[] {
  const paths = Object.entries({ dataDir, socket, fleetKeyFile }).map(([name, value]) => [name, typeof value === 'string' ? resolve(value) : value] as const)
  return [...paths, ...Object.entries(rest)]
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ({ key: snakeCase(name), value, place: 'the command line' }))
}

function check(settings: ReadonlyMap<string, Setting>, defaults: Config): Config {
  const config: Record<string, unknown> = structuredClone(defaults)
  for (const { key, value, place } of settings.values()) {
    const result = schemaOf(key).safeParse(value)
    if (!result.success) throw invalidValue(key, value, place, result.error)
    const [first = '', second] = key.split('.').map(camelCase)
    if (second === undefined) config[first] = result.data
    else Object.assign(config[first] as object, { [second]: result.data })
  }
  return configSchema.parse(config)
}

function invalidValue(key: string, value: unknown, place: string, error: z.ZodError): NarvikError {
  const { found, needed } = explainMismatch(error, value)
  return new NarvikError('invalid-config', `Cannot use ${key} (${place}): found ${found}, needed ${needed}`)
}

function unknownKey(found: string, place: string, known: readonly string[]): NarvikError {
  const near = nearest(found, known)
  return new NarvikError('invalid-config', `Cannot use the key ${found} (${place}): found no such key, needed one such as ${near}`, { hint: `Did you mean ${near}?` })
}

function nearest(text: string, known: readonly string[]): string {
  const inside = known.find(key => key.startsWith(`${text}.`))
  if (inside !== undefined) return inside
  const distances = known.map(key => ({ key, distance: Math.min(editDistance(text, key), editDistance(text, key.split('.').at(-1) ?? key) + 1) }))
  return distances.reduce((best, next) => next.distance < best.distance ? next : best).key
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length] ?? 0
}

function schemaOf(key: string): z.ZodType {
  return key.split('.').reduce<z.ZodType>((schema, part) => schema instanceof z.ZodObject ? schema.shape[camelCase(part)] as z.ZodType : schema, configSchema)
}

function keysOf(shape: Readonly<Record<string, z.ZodType>>, prefix = ''): string[] {
  return Object.entries(shape).flatMap(([name, schema]) => {
    const key = prefix + snakeCase(name)
    return schema instanceof z.ZodObject ? keysOf(schema.shape, `${key}.`) : [key]
  })
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

function isListenAddress(text: string): boolean {
  const [empty, family, host = '', transport, port = '', ...rest] = text.split('/')
  const version = family === 'ip4' ? 4 : family === 'ip6' ? 6 : undefined
  return empty === '' && version !== undefined && isIP(host) === version && transport === 'tcp' &&
    /^\d{1,5}$/.test(port) && Number(port) < 65536 && rest.length === 0
}
