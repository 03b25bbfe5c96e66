import { resolve } from 'node:path'
import { NarvikError } from '../errors.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { MAX_CLOSURE_PATHS, MAX_NIX_ADDITIONS, MAX_NIX_OUTPUT_BYTES, MAX_NIX_PROCESSES, MAX_PATHS_PER_NIX_COMMAND, NIX_KILL_DELAY_MS, NIX_QUERY_TIMEOUT_MS } from '../limits.ts'
import { openSocket } from './daemon-socket.ts'
import { execute, openPipes, type Abortable, type Answer, type RunOptions, type StoreDaemon } from './execute.ts'
import { isRegisteredRoot } from './gc-root.ts'
import { NixError } from './nix-error.ts'
import { parsePathInfo } from './path-info.ts'
import { programStamp } from './program-stamp.ts'
import { quote } from './quote.ts'
import { Slots } from './slots.ts'
import { daemonSocket, locateStore, mayWrite, storeExists, type StoreLocation } from './store-location.ts'
import { databaseIn, stampOf } from './store-stamp.ts'
import { isStoreName, parseStorePath, tryParseStorePath } from './store-path.ts'
import { hasJsonFormat, isSupported, parseNixVersion, type NixFlavour, type NixVersion } from './version.ts'
import type { Logger } from '../log.ts'

export interface NixCommandInit {
  /** The directory of the `nix` program; where absent, PATH is searched. */
  readonly binDir?: string
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Milliseconds for a command that only asks. */
  readonly queryTimeoutMs?: number
  /** Milliseconds between asking a command to end and killing it. */
  readonly killDelayMs?: number
  /** Bytes that a command may write to each of its outputs. */
  readonly maxOutputBytes?: number
  /** As in `nix --store`; where absent, the store that Nix takes by itself. */
  readonly store?: string
}

export type NixProbe =
  | { readonly available: true, readonly version: string, readonly flavour: NixFlavour }
  | { readonly available: false, readonly reason: string }

export interface VerifyPathOptions extends Abortable {
  readonly contents?: boolean
  readonly trust?: boolean
  /** Public keys in place of those of nix.conf. */
  readonly keys?: readonly string[]
}

/** What Nix found of a path; null where it was not asked. */
export interface NixVerdict {
  readonly intact: boolean | null
  readonly trusted: boolean | null
  /** What Nix said about it. */
  readonly said: string
}

/** Bits of the exit code of `nix store verify`; 4 is for what could not be checked (nix: src/nix/verify.cc). */
const CORRUPT = 1
const UNTRUSTED = 2
/** Whatever else goes wrong ends with 1 as well: only what Nix says tells a corrupt path from a Nix that failed. */
function isVerifyFinding(exitCode: number, said: string): boolean {
  return exitCode === UNTRUSTED || ((exitCode === CORRUPT || exitCode === (CORRUPT | UNTRUSTED)) && said.includes('was modified'))
}

const DEFAULTS = { queryTimeoutMs: NIX_QUERY_TIMEOUT_MS, killDelayMs: NIX_KILL_DELAY_MS, maxOutputBytes: MAX_NIX_OUTPUT_BYTES }

/**
 * The `nix` program of this machine. Every failure is a NixError whose `kind` says what went wrong and whose message says
 * what Nix said; an aborted signal throws its own reason. No method makes a store where there is none.
 */
export class NixCommand {
  readonly #logger: Logger
  readonly #init: NixCommandInit & typeof DEFAULTS
  readonly #program: string
  readonly #env: Readonly<Record<string, string | undefined>>
  readonly #location: StoreLocation
  readonly #queries = new Slots(MAX_NIX_PROCESSES)
  readonly #additions = new Slots(MAX_NIX_ADDITIONS)
  #version: NixVersion | undefined
  /** Of the program that `probe` has asked for the version. */
  #stamp: string | null = null

  constructor({ logger }: { logger: Logger }, init: NixCommandInit = {}) {
    this.#logger = logger
    this.#init = { ...DEFAULTS, ...init }
    this.#program = init.binDir === undefined ? 'nix' : resolve(init.binDir, 'nix')
    this.#env = commandEnvironment({ ...process.env, ...init.env })
    this.#location = locateStore(init.store, this.#env)
  }

  /** The directory that this store's paths are written with, for instance `/nix/store`. */
  get storeDir(): string {
    return this.#location.storeDir
  }

  /** The file of the database of a store on this machine; null for one that only Nix can reach. */
  get database(): string | null {
    const { stateDir } = this.#location
    return stateDir === null ? null : databaseIn(stateDir)
  }

  /** Whether there is a Nix that Narvik can use, and which; one that could be used is asked again when another program has taken its place. */
  async probe(options: Abortable = {}): Promise<NixProbe> {
    const stamp = programStamp(this.#program, this.#env)
    if (stamp === null || stamp !== this.#stamp) this.#version = undefined
    try {
      const { version, flavour } = await this.#knownVersion(options)
      this.#stamp = stamp
      return { available: true, version, flavour }
    } catch (error) {
      if (error instanceof NixError) return { available: false, reason: error.message }
      throw error
    }
  }

  /**
   * What the store knows of each path; null where it is not valid. One process answers for many paths.
   * @throws NarvikError `invalid-argument` where one is not a store path of this store.
   */
  async pathInfo(paths: readonly string[], options: Abortable = {}): Promise<Map<string, NixPathInfo | null>> {
    const wanted = [...new Set(paths)]
    for (const path of wanted) parseStorePath(path, this.storeDir)
    if (wanted.length === 0) return new Map()
    if (!await storeExists(this.#location)) return new Map(wanted.map(path => [path, null]))
    const version = await this.#knownVersion(options)
    const answers = await Promise.all(batches(wanted).map(batch => this.#askPathInfo(batch, version, options)))
    const infos = new Map(answers.flatMap(answer => [...answer]))
    return new Map(wanted.map(path => [path, infos.get(path) ?? null]))
  }

  /**
   * What the store knows of a path and of everything that it refers to, in one answer of one process.
   * @throws NixError `not-valid` where the path is not valid; NarvikError `too-large` where the closure is.
   */
  async closureInfo(path: string, options: Abortable = {}): Promise<Map<string, NixPathInfo>> {
    parseStorePath(path, this.storeDir)
    await this.#needStore(`ask for the closure of ${path}`)
    const version = await this.#knownVersion(options)
    const infos = await this.#askPathInfo([path], version, { ...options, recursive: true })
    if (infos.size > MAX_CLOSURE_PATHS) throw new NarvikError('too-large', `Cannot take the closure of ${path}: found ${infos.size} paths, needed at most ${MAX_CLOSURE_PATHS}`)
    return new Map([...infos].map(([member, info]) => {
      if (info === null) throw new NixError('not-valid', `Cannot take the closure of ${path}: found that Nix says that ${member} is not valid, needed all of it valid`)
      return [member, info]
    }))
  }

  /**
   * While it is the same, Nix would say the same of a path; null where that can't be told, so that Nix has to be asked.
   * Starts no process.
   */
  stamp(path: string): string | null {
    return stampOf(this.#location, parseStorePath(path, this.storeDir).baseName)
  }

  /**
   * Copies a tree into the store, as `nix store add-path` does.
   * @returns the store path.
   */
  async addPath(path: string, name: string, options: Abortable = {}): Promise<string> {
    if (!isStoreName(name)) throw new NarvikError('invalid-argument', `Cannot add ${quote(path)} to the Nix store: found the name ${quote(name)}, needed 1 to 211 of 0-9 a-z A-Z + - . _ ? =`)
    if (path === '' || path.includes('\0')) throw new NarvikError('invalid-argument', `Cannot add ${quote(path)} to the Nix store: needed the path of a file or directory`)
    await this.#needStore(`add ${path} to the Nix store`)
    await this.#knownVersion(options)
    const answer = (await this.#run(['store', 'add-path', '--name', name, resolve(path)], options)).trim()
    if (tryParseStorePath(answer, this.storeDir)?.name === name) return answer
    throw new NixError('bad-output', `Cannot add ${path} to the Nix store: found ${quote(answer)} as the answer of nix store add-path, needed a store path in ${this.storeDir} with the name ${name}`)
  }

  /** Whether Nix knows a link as a root; null where that can't be seen. */
  async hasRoot(link: string): Promise<boolean | null> {
    return await isRegisteredRoot(this.#location, link)
  }

  /**
   * Has Nix check a valid path, as `nix store verify` does: its contents against the hash that the store has for it, and
   * whether it is trusted. Reads all of it.
   * @throws NixError `not-valid` where the store has no such path.
   */
  async verify(path: string, { signal, contents = true, trust = true, keys }: VerifyPathOptions = {}): Promise<NixVerdict> {
    parseStorePath(path, this.storeDir)
    await this.#needStore(`verify ${path}`)
    await this.#knownVersion({ signal })
    const asked = [...contents ? [] : ['--no-contents'], ...trust ? [] : ['--no-trust'], ...keys === undefined ? [] : ['--option', 'trusted-public-keys', keys.join(' ')]]
    const derivation = path.endsWith('.drv') ? ['--derivation'] : []
    const answer = await this.#ask(['store', 'verify', '--option', 'substitute', 'false', ...asked, ...derivation, path], { signal, accepted: isVerifyFinding })
    const found = (bit: number): boolean => (answer.exitCode & bit) !== 0
    return { intact: contents ? !found(CORRUPT) : null, trusted: trust ? !found(UNTRUSTED) : null, said: answer.said }
  }

  /** Whether this user can add paths: to the store itself, or through its daemon. */
  async canWriteStore(options: Abortable = {}): Promise<boolean> {
    if (!await storeExists(this.#location) || !await mayWrite(this.#location, this.#env['NIX_DAEMON_SOCKET_PATH'])) return false
    try {
      await this.#run(['store', 'ping'], { ...options, timeoutMs: this.#init.queryTimeoutMs })
      return true
    } catch (error) {
      if (error instanceof NixError) return false
      throw error
    }
  }

  /**
   * Opens a connection that speaks the worker protocol: to the daemon that the machine runs, where Nix itself would go through it, and else to
   * one of its own on a pair of pipes (`nix-daemon --stdio`), which opens the store. The caller ends it with `stop`.
   */
  async startStoreDaemon({ signal }: Abortable = {}): Promise<StoreDaemon> {
    await this.#needStore('write to the Nix store')
    await this.#knownVersion({ signal })
    const socket = await daemonSocket(this.#init.store, this.#env, this.#location)
    signal?.throwIfAborted()
    if (socket !== null) return openSocket(socket, { signal })
    const store = this.#init.store === undefined ? [] : ['--store', this.#init.store]
    return openPipes(this.#sibling('nix-daemon'), ['--stdio', ...store], { env: this.#env, killDelayMs: this.#init.killDelayMs, signal })
  }

  #sibling(program: string): string {
    return this.#init.binDir === undefined ? program : resolve(this.#init.binDir, program)
  }

  async #needStore(action: string): Promise<void> {
    if (await storeExists(this.#location)) return
    throw new NixError('missing', `Cannot ${action}: found no directory ${this.#location.directory ?? ''}, needed a Nix store`)
  }

  async #knownVersion({ signal }: Abortable): Promise<NixVersion> {
    if (this.#version !== undefined) return this.#version
    const text = await this.#run(['--version'], { signal, timeoutMs: this.#init.queryTimeoutMs })
    const version = parseNixVersion(text)
    if (version === undefined) throw new NixError('bad-output', `Cannot use ${this.#program}: found ${quote(text)} as its version, needed for instance "nix (Nix) 2.8.0"`)
    if (!isSupported(version)) throw new NixError('too-old', `Cannot use ${this.#program}: found version ${version.version}, needed 2.4 or newer`)
    this.#version = version
    return version
  }

  async #askPathInfo(paths: readonly string[], version: NixVersion, { recursive = false, ...options }: Abortable & { readonly recursive?: boolean }): Promise<Map<string, NixPathInfo | null>> {
    // A bare .drv stands for its outputs in some versions, unless derivations are asked for. Offline, since a path that is
    // not here must not be looked for in the network.
    const derivations = paths[0]?.endsWith('.drv') === true ? ['--derivation'] : []
    const format = hasJsonFormat(version) ? ['--json-format', '1'] : []
    try {
      const text = await this.#run(['path-info', '--offline', '--json', ...format, ...derivations, ...recursive ? ['--recursive'] : [], ...paths], { ...options, timeoutMs: this.#init.queryTimeoutMs })
      const answer = parseAnswer(text, this.storeDir)
      return recursive ? answer : checkAnswer(paths, answer)
    } catch (error) {
      // Another Nix may have taken the place of the one that was asked for its version.
      this.#version = undefined
      throw error
    }
  }

  async #run(args: readonly string[], options: RunOptions): Promise<string> {
    return (await this.#ask(args, options)).stdout
  }

  async #ask(args: readonly string[], { signal, timeoutMs, program, accepted = () => false }: RunOptions): Promise<Answer> {
    const store = this.#init.store === undefined || args[0] === '--version' ? [] : ['--store', this.#init.store]
    const command = `${program ?? 'nix'} ${args.slice(0, args[0] === 'store' ? 2 : 1).join(' ')}`
    // What takes as long as the tree is large must not keep short questions waiting.
    const slots = timeoutMs === undefined ? this.#additions : this.#queries
    return await slots.run(async () => {
      const started = performance.now()
      try {
        const { killDelayMs, maxOutputBytes } = this.#init
        return await execute({ program: program === undefined ? this.#program : this.#sibling(program), accepted, args: [...args, ...store], command, env: this.#env, killDelayMs, maxOutputBytes, timeoutMs, signal })
      } finally {
        this.#logger.debug('Nix command ended', { command, arguments: args.length, milliseconds: Math.round(performance.now() - started) })
      }
    }, signal)
  }
}

function commandEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string | undefined> {
  // What the user configured stays, and the system's messages stay in English.
  const settings = [env['NIX_CONFIG'] ?? '', 'extra-experimental-features = nix-command']
  return { ...env, NIX_CONFIG: settings.join('\n'), LC_ALL: 'C' }
}

function batches(paths: readonly string[]): string[][] {
  const groups = Object.values(Object.groupBy(paths, path => path.endsWith('.drv') ? 'derivations' : 'others'))
  return groups.flatMap(group => Array.from({ length: Math.ceil(group.length / MAX_PATHS_PER_NIX_COMMAND) },
    (_, index) => group.slice(index * MAX_PATHS_PER_NIX_COMMAND, (index + 1) * MAX_PATHS_PER_NIX_COMMAND)))
}

function parseAnswer(text: string, storeDir: string): Map<string, NixPathInfo | null> {
  try {
    return parsePathInfo(text, storeDir)
  } catch (error) {
    if (error instanceof NarvikError) throw new NixError('bad-output', error.message, { cause: error })
    throw error
  }
}

function checkAnswer(asked: readonly string[], infos: Map<string, NixPathInfo | null>): Map<string, NixPathInfo | null> {
  const missing = asked.find(path => !infos.has(path))
  const known = new Set(asked)
  const extra = [...infos.keys()].find(path => !known.has(path))
  if (missing === undefined && extra === undefined) return infos
  throw new NixError('bad-output', `Cannot take the answer of nix path-info: found ${extra ?? 'nothing'}, needed ${missing ?? 'only the paths that were asked for'}`)
}
