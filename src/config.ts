import { existsSync, readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { BYTE_SIZE_FORM, formatByteSize, parseByteSize } from './byte-size.ts'
import { nearest } from './config/nearest.ts'
import { leavesOf, lineOf, parseToml } from './config/toml.ts'
import { fromSystemError, NarvikError, systemCode } from './errors.ts'
import { MAX_CONFIG_BYTES, MAX_FETCHES, MAX_LISTED_PEERS, MAX_MIN_COPIES, MAX_SERVED_STREAMS, MAX_TRUSTED_KEYS, MIN_RATE_BYTES, NIX_QUERY_TIMEOUT_MS, STREAM_STALL_MS } from './limits.ts'
import { LOG_LEVELS } from './log.ts'
import { explainMismatch } from './mismatch.ts'

const path = z.string().regex(/^\/[^\0]*$/, 'an absolute path').max(4096)
const listenAddress = z.string().refine(isListenAddress, 'a multiaddr such as /ip4/127.0.0.1/tcp/4650')
const loopback = z.union([z.ipv4(), z.ipv6()], 'a loopback address, such as 127.0.0.1 or ::1')
  .refine(host => host === '::1' || host.startsWith('127.'), 'a loopback address, such as 127.0.0.1 or ::1: who reaches the page needs no key')
const PEER_ID_FORM = '[1-9A-HJ-NP-Za-km-z]{46,64}'
/** The form of a peer id. */
export const PEER_ID = new RegExp(`^${PEER_ID_FORM}$`)
const PEER_ADDRESS = new RegExp(String.raw`^/(ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/\d{1,5}/p2p/${PEER_ID_FORM}$`)
const peerAddress = z.string().max(512).regex(PEER_ADDRESS, 'a multiaddr with a peer id, such as /dns4/host/tcp/4650/p2p/12D3…')
const peerIds = z.array(z.string().regex(PEER_ID, 'a peer id, such as 12D3KooW…')).max(MAX_LISTED_PEERS).readonly()
const publicKey = z.string().max(512).regex(/^[\x21-\x39\x3b-\x7e]{1,255}:[A-Za-z0-9+/]{43}=$/, 'a public key as Nix writes it, such as fleet-1:6NCH…Y=')
/** Which images are announced. */
export const SHARING = ['everything', 'named', 'nothing'] as const
export type Sharing = (typeof SHARING)[number]
const signatureCount = z.int().min(0).max(MAX_TRUSTED_KEYS)
const byteSize = z.union([z.int().min(0), z.string().max(64)], 'a number of bytes, or text').transform((value, context) => {
  const bytes = typeof value === 'number' ? value : parseByteSize(value)
  if (bytes !== undefined) return bytes
  context.addIssue({ code: 'custom', message: BYTE_SIZE_FORM })
  return z.NEVER
})
/** Bytes per second; a lower limit than the least would have peers give the stream up. */
const rate = byteSize.refine(bytes => bytes === 0 || bytes >= MIN_RATE_BYTES, `0 for no limit, or at least ${formatByteSize(MIN_RATE_BYTES)}`)
/** Whether a key takes a size, as bytes or as text with a unit. */
export function isByteSize(schema: z.ZodType): boolean {
  return schema instanceof z.ZodNullable ? isByteSize(schema.unwrap() as z.ZodType) : schema instanceof z.ZodPipe
}
const seconds = z.number().positive().max(7 * 24 * 3600)

/**
 * Every key of the configuration, with the sentences that its documents have of it. A key is written in snake_case in the
 * file: `data_dir`, `nix.bin_dir`. One that is null until it is set has an example.
 */
const configSchema = z.strictObject({
  dataDir: path.describe('Where the host\'s key, the catalog and the images are; for a daemon of your own ~/.local/share/narvik.'),
  socket: path.describe('The control socket; for a daemon of your own $XDG_RUNTIME_DIR/narvik.sock, or narvik.sock in data_dir.'),
  listen: z.array(listenAddress).max(16).readonly()
    .describe('Addresses to listen on; other hosts reach this one through, for instance, "/ip4/0.0.0.0/tcp/4650". Port 0 is a free one.'),
  bootstrap: z.array(peerAddress).max(256).readonly()
    .describe('Peers that are dialled until they answer, for instance "/dns4/host-a/tcp/4650/p2p/12D3KooW…".'),
  mdns: z.boolean().describe('Whether peers on the same LAN are looked for.'),
  fleetKeyFile: path.nullable().meta({
    description: 'File with the fleet\'s key, made by `narvik fleet create`: only hosts that hold it get past the handshake. Not set: the credential narvik.fleet.key of systemd where there is one (/etc/credstore/narvik.fleet.key), else this host is in no fleet.',
    examples: ['/etc/narvik/fleet.key'],
  }),
  acceptFleetKeyFiles: z.array(path).max(8).readonly().meta({
    description: 'Files with other keys that are accepted as well, while the fleet changes over from one key to the next; docs/TRUST.md says how.',
    examples: [['/etc/narvik/fleet.next.key']],
  }),
  allowOpen: z.boolean().describe('Whether listen may go beyond loopback without a fleet key, so that anyone who reaches the port can fetch.'),
  peers: z.strictObject({
    allow: peerIds.describe('Peer ids to have to do with, for instance "12D3KooW…", and with nobody else; empty: with everyone who has the fleet\'s key.'),
    deny: peerIds.describe('Peer ids to have nothing to do with, also where they are allowed; their connections end when this is reloaded.'),
  }).describe('With whom this host has to do, besides the fleet\'s key.'),
  sharing: z.strictObject({
    announce: z.enum(SHARING).describe('Which verified images the fleet is told of: everything, named (only those with a name), or nothing. ' +
      'Who knows a hash may still ask for it; what is private is served to nobody.'),
  }).describe('What this host tells the fleet that it has.'),
  log: z.strictObject({
    level: z.enum(LOG_LEVELS).describe('debug, info, warn or error.'),
    format: z.enum(['json', 'text']).describe('text, or json: a document a line; under systemd the default is json.'),
  }).describe('What the daemon writes to standard error.'),
  metrics: z.strictObject({
    port: z.int().min(0).max(65535).nullable().meta({
      description: 'TCP port on which /metrics is answered for Prometheus; 0 is a free one. Not set: only the control socket and `narvik metrics` tell them.',
      examples: [4651],
    }),
    host: z.union([z.ipv4(), z.ipv6()]).describe('Address of this host that the port is opened on; whoever reaches it can read the metrics, and nothing else; one of loopback only by a name of loopback.'),
  }).describe('What Prometheus is told.'),
  traces: z.strictObject({
    endpoint: z.url({ protocol: /^https?$/, error: 'an http or https address, such as http://127.0.0.1:4318' }).max(2048).nullable().meta({
      description: 'Base address of a receiver of OpenTelemetry traces over OTLP/HTTP; spans go to /v1/traces below it. Not set: that of the variable ' +
        'OTEL_EXPORTER_OTLP_ENDPOINT where there is one, else nothing is traced. The receiver learns NAR hashes, peer ids and times; no paths and no names.',
      examples: ['http://127.0.0.1:4318'],
    }),
  }).describe('Traces with OpenTelemetry; docs/OPERATIONS.md says what is in them.'),
  page: z.strictObject({
    port: z.int().min(0).max(65535).nullable().meta({
      description: 'TCP port on which a browser on this host, or one behind `ssh -L`, finds a page that shows the fleet, the transfers and the images, and changes nothing; ' +
        '0 is a free one. Not set: the page is on the control socket alone.',
      examples: [4652],
    }),
    host: loopback.describe('Loopback address that the port is opened on; every user of this host can read what the page shows.'),
  }).describe('The page to look at; docs/PAGE.md describes it.'),
  nix: z.strictObject({
    enabled: z.boolean().describe('Whether Nix is asked about store paths, where it is installed.'),
    binDir: path.nullable().meta({ description: 'Directory with the nix program. Not set: the one on PATH.', examples: ['/run/current-system/sw/bin'] }),
    storeAddMaxBytes: z.int().min(0).describe('Bytes of the NAR up to which an imported tree is added to the Nix store, where the daemon may write to one; 0 for never. ' +
      'Older Nix holds the whole tree in memory for it; larger trees go into Narvik\'s own store.'),
    installFetched: z.boolean().describe('Whether images that are fetched are installed in the Nix store by themselves, as by `narvik install`, where something ' +
      'vouches for their store path and Nix trusts it; what they refer to must be in the store, or be fetched as well. The note of an image says why it is not.'),
    queryTimeoutSeconds: seconds.describe('Seconds for a question to Nix.'),
  }).describe('The Nix of this host.'),
  trust: z.strictObject({
    keys: z.array(publicKey).max(MAX_TRUSTED_KEYS).readonly().describe('Public keys whose signatures count, as Nix writes them, for instance ' +
      '"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=". Old and new keys may stand side by side while keys are changed.'),
    signaturesByHash: signatureCount.describe('How many different trusted keys must have signed an image that is fetched by its NAR hash; the hash is the trust.'),
    signaturesByStorePath: signatureCount.describe('The same where it is fetched by its store path; with as many, but at least one, a store path that a peer names is ' +
      'believed. A path that follows from its content address needs none.'),
    signaturesByName: signatureCount.describe('The same where it is fetched by a name that another host published.'),
  }).describe('Whose signatures count, and how many are needed.'),
  fetch: z.strictObject({
    providerWaitSeconds: seconds.describe('Seconds to go on looking for a provider where the request gives no timeout.'),
    stallSeconds: seconds.describe('Seconds without a byte after which a provider is given up for the next.'),
    atOnce: z.int().min(1).max(MAX_FETCHES).describe('Images that are received at once; the others wait in a queue, by their priority. See `narvik queue`.'),
  }).describe('How images are received.'),
  rates: z.strictObject({
    upload: rate.describe('Bytes per second that this host sends at most, to all peers together, such as "50 MiB"; 0 for as many as go.'),
    download: rate.describe('The same for what it receives.'),
    uploadPerPeer: rate.describe('Bytes per second to each single peer at most; 0 for as many as go.'),
    downloadPerPeer: rate.describe('The same for what each single peer sends.'),
    uploadSlots: z.int().min(1).max(MAX_SERVED_STREAMS).describe('NARs that are sent at once; the next asker is told to ask somebody else, or later.'),
  }).describe('How fast images move. Bytes of images and manifests count, in every protocol.'),
  space: z.strictObject({
    quota: byteSize.nullable().meta({
      description: 'What Narvik may take on disk for itself: images, quarantine and catalog; what is in place in the Nix store is not counted. Where a fetch or an ' +
        'import needs more, images are collected: those without a name that were not used for longest first. Not set: no quota.',
      examples: ['200 GiB'],
    }),
    minFree: byteSize.describe('What must be free on the disk, in bytes or such as "1 GiB"; below it fetches are paused until there is room again. 0 for nothing.'),
    minCopies: z.int().min(0).max(MAX_MIN_COPIES).describe('Copies of an image that must be left elsewhere in the fleet before this host\'s is collected. ' +
      '0 asks nobody, and lets the last copy go.'),
  }).describe('How much room Narvik may take, and what it gives free; docs/SPACE.md says how.'),
  scrub: z.strictObject({
    bytesPerSecond: byteSize.describe('How fast verified images are read again in the background, to find damage, such as "16 MiB"; 0 for not at all.'),
    intervalDays: z.number().positive().max(3650).describe('Days after its last proof before an image is proven again: what is pinned first, then what has a name.'),
  }).describe('Proving again what is here. What is damaged is withdrawn, and repaired from peers.'),
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
export function loadConfig(sources: ConfigSources): Config {
  const { config, problems } = checkConfig(sources)
  const [first] = problems
  if (first !== undefined) throw first
  return config
}

/** What `loadConfig` would read, with everything that is wrong with it instead of the first thing alone. */
export interface ConfigCheck {
  /** The file that was read; null where there is none. */
  readonly file: string | null
  /** With the default wherever a value is wrong. */
  readonly config: Config
  /** Every key in the order of the schema, with its value and the place that it came from. */
  readonly settings: readonly Setting[]
  readonly problems: readonly NarvikError[]
}

/** @throws NarvikError for a file that can't be read at all, or is no TOML. */
export function checkConfig({ file, flags = {}, env, uid = process.getuid?.() ?? 0 }: ConfigSources): ConfigCheck {
  const home = { env, uid }
  const read = readFile(file, home)
  const given = new Map<string, Setting>()
  const problems: NarvikError[] = []
  for (const setting of [...read.settings, ...readEnvironment(env), ...readFlags(flags)]) {
    const problem = problemOf(setting)
    if (problem === undefined) given.set(setting.key, setting)
    else problems.push(problem)
  }
  const dataDir = given.get('data_dir')?.value
  const defaults = defaultConfig(typeof dataDir === 'string' ? { ...home, dataDir } : home)
  const config = combine(given, defaults)
  const settings = CONFIG_KEYS.map(key => ({ key, value: valueAt(config, key), place: given.get(key)?.place ?? 'the default' }))
  return { file: read.file, config, settings, problems }
}

/** The configuration without file, variables or flags; its paths follow the user and what systemd set up. */
export function defaultConfig({ env, uid, dataDir = defaultDataDir(env, uid) }: Home & { readonly dataDir?: string }): Config {
  return {
    dataDir,
    socket: defaultSocket(env, uid, dataDir),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: true,
    fleetKeyFile: credential(env, 'narvik.fleet.key'),
    acceptFleetKeyFiles: [],
    allowOpen: false,
    peers: { allow: [], deny: [] },
    sharing: { announce: 'everything' },
    log: { level: 'info', format: env.JOURNAL_STREAM === undefined || process.stderr.isTTY ? 'text' : 'json' },
    metrics: { port: null, host: '127.0.0.1' },
    traces: { endpoint: null },
    page: { port: null, host: '127.0.0.1' },
    nix: { enabled: true, binDir: null, storeAddMaxBytes: 256 * 1024 ** 2, installFetched: false, queryTimeoutSeconds: NIX_QUERY_TIMEOUT_MS / 1000 },
    trust: { keys: [], signaturesByHash: 0, signaturesByStorePath: 1, signaturesByName: 1 },
    fetch: { providerWaitSeconds: 60, stallSeconds: STREAM_STALL_MS / 1000, atOnce: 4 },
    rates: { upload: 0, download: 0, uploadPerPeer: 0, downloadPerPeer: 0, uploadSlots: MAX_SERVED_STREAMS },
    space: { quota: null, minFree: 1024 ** 3, minCopies: 1 },
    scrub: { bytesPerSecond: 16 * 1024 ** 2, intervalDays: 30 },
  }
}

/** Every key as it is written in the file, in the order of the schema. */
export const CONFIG_KEYS: readonly string[] = keysOf(configSchema.shape)

/** The keys whose values differ between two configurations, as they are written in the file. */
export function changedKeys(before: Config, after: Config): string[] {
  return CONFIG_KEYS.filter(key => JSON.stringify(valueAt(before, key)) !== JSON.stringify(valueAt(after, key)))
}

/** What the documents say of a key. */
export interface ConfigKey {
  /** As it is written in the file. */
  readonly key: string
  readonly schema: z.ZodType
  /** Sentences. */
  readonly description: string
  /** Of a key that is null until it is set. */
  readonly example: unknown
}

/** Every key, or every table of keys, with its documentation. */
export function describeConfig(what: 'keys' | 'tables'): ConfigKey[] {
  const names = what === 'keys' ? CONFIG_KEYS : [...new Set(CONFIG_KEYS.filter(key => key.includes('.')).map(key => key.split('.')[0] ?? ''))]
  return names.map(key => {
    const schema = schemaOf(key)
    const { description = '', examples } = schema.meta() ?? {}
    return { key, schema, description, example: Array.isArray(examples) ? examples[0] as unknown : undefined }
  })
}

/** The environment variable that sets a key. */
export function environmentName(key: string): string {
  return `NARVIK_${key.toUpperCase().replaceAll('.', '_')}`
}

interface Home {
  readonly env: NodeJS.ProcessEnv
  readonly uid: number
}

/** A value with the place it came from, for the message if it is wrong. */
export interface Setting {
  readonly key: string
  readonly value: unknown
  readonly place: string
}

/** Where a daemon of the whole host keeps its things; a user who has none of their own may speak to it. */
export const SYSTEM_SOCKET = '/run/narvik/narvik.sock'

/** A file that systemd has put there for this service alone (`LoadCredential=`). */
function credential({ CREDENTIALS_DIRECTORY: directory }: NodeJS.ProcessEnv, name: string): string | null {
  const file = directory === undefined ? null : join(directory, name)
  return file !== null && existsSync(file) ? file : null
}

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

function readFile(named: string | undefined, { env, uid }: Home): { readonly file: string | null, readonly settings: Setting[] } {
  const name = named ?? (env.NARVIK_CONFIG === '' ? undefined : env.NARVIK_CONFIG)
  const file = name === undefined ? defaultFile(env, uid) : resolve(name)
  try {
    const { size } = statSync(file)
    if (size > MAX_CONFIG_BYTES) {
      throw new NarvikError('invalid-config', `Cannot read ${file}: found ${size} bytes, needed at most ${MAX_CONFIG_BYTES}`)
    }
    return { file, settings: fileSettings(readFileSync(file, 'utf8'), file) }
  } catch (error) {
    if (name === undefined && systemCode(error) === 'ENOENT') return { file: null, settings: [] }
    throw fromSystemError(error, `read the configuration ${file}`)
  }
}

function fileSettings(text: string, file: string): Setting[] {
  return Array.from(leavesOf(parseToml(text, file), CONFIG_KEYS), ([key, value]) => {
    const line = lineOf(text, key)
    return { key, value, place: line === undefined ? file : `${file}, line ${line}` }
  })
}

function readEnvironment(env: NodeJS.ProcessEnv): Setting[] {
  const keys = new Map(CONFIG_KEYS.map(key => [environmentName(key), key]))
  const settings: Setting[] = []
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('NARVIK_') || variable === 'NARVIK_CONFIG' || text === undefined || text === '') continue
    const key = keys.get(variable)
    settings.push(key === undefined
      ? { key: variable, value: text, place: 'the environment' }
      : { key, value: fromText(text, schemaOf(key)), place: variable })
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

function combine(given: ReadonlyMap<string, Setting>, defaults: Config): Config {
  const config: Record<string, unknown> = structuredClone(defaults)
  for (const { key, value } of given.values()) {
    const [first = '', second] = key.split('.').map(camelCase)
    if (second === undefined) config[first] = value
    else Object.assign(config[first] as object, { [second]: value })
  }
  return configSchema.parse(config)
}

function valueAt(config: Config, key: string): unknown {
  return key.split('.').reduce<unknown>((value, part) => (value as Record<string, unknown>)[camelCase(part)], config)
}

function problemOf({ key, value, place }: Setting): NarvikError | undefined {
  if (!CONFIG_KEYS.includes(key)) return unknownKey(key, place)
  const result = schemaOf(key).safeParse(value)
  if (result.success) return undefined
  const { found, needed } = explainMismatch(result.error, value)
  return new NarvikError('invalid-config', `Cannot use ${key} (${place}): found ${found}, needed ${needed}`)
}

function unknownKey(found: string, place: string): NarvikError {
  const known = place === 'the environment' ? [...CONFIG_KEYS.map(environmentName), 'NARVIK_CONFIG'] : CONFIG_KEYS
  const near = nearest(found, known)
  return new NarvikError('invalid-config', `Cannot use the key ${found} (${place}): found no such key, needed one such as ${near}`, { hint: `Did you mean ${near}?` })
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
