import { Command, CommanderError } from 'commander'
import { BYTE_SIZE_FORM, parseByteSize } from '../byte-size.ts'
import type { ConfigFlags } from '../config.ts'
import { MAX_PRIORITY } from '../control/api.ts'
import { NarvikError } from '../errors.ts'
import { completion } from './completion.ts'
import { configCheck } from './config.ts'
import { doctor } from './doctor/doctor.ts'
import { fleetCreate, fleetShow } from './fleet.ts'
import { dump, hash, restore } from './offline.ts'
import * as online from './online.ts'
import type { Action } from './outcome.ts'
import { publish, type PublishOptions } from './publish.ts'
import { EXAMPLES } from './examples.ts'
import { installService } from './service.ts'

/** What every command takes. */
export interface CommonOptions {
  readonly json?: boolean
  readonly socket?: string
  /** Only of the commands that show what changes. */
  readonly watch?: boolean
}

export interface DaemonOptions extends CommonOptions {
  readonly file?: string
  readonly flags: ConfigFlags
}

/** Who carries out what the command line asks for. */
export interface Runner {
  readonly run: (action: Action, options: CommonOptions) => Promise<void>
  readonly daemon: (options: DaemonOptions) => Promise<void>
}

/** The command line of docs/CLI.md; it parses, and leaves the doing and the printing to `runner`. */
export function createProgram(version: string, runner: Runner): Command {
  const program = common(new Command('narvik'))
    .enablePositionalOptions()
    .description('Moves Nix-built VM images between the hosts of a fleet, and shows none before its NAR hash is proven.')
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
  addDaemon(program, runner)
  addOnline(program, runner)
  addSpace(program, runner)
  addHost(program, runner)
  addOffline(program, runner)
  addQueue(program, runner)
  addConfig(program, runner)
  addFleet(program, runner)
  addService(program, runner)
  common(program.command('completion <SHELL> [WORD]')).description('print a completion for bash, zsh or fish; needs no daemon')
    .action((shell: string, word: string | undefined, options: CommonOptions) => runner.run(completion(shell, word, program), options))
  settle(program)
  program.hook('preAction', (_, command) => { inherit(command) })
  return program
}

/** What stands before the command counts for it: `narvik --json status` is `narvik status --json`. Where both say something, the command's own counts. */
function inherit(command: Command): void {
  for (let { parent } = command; parent !== null; { parent } = parent) {
    for (const [key, value] of Object.entries(parent.opts())) {
      if (command.getOptionValueSource(key) === undefined) command.setOptionValueWithSource(key, value, 'cli')
    }
  }
  const { json, watch }: CommonOptions = command.opts()
  if (json === true && watch === true) command.error('error: option \'--watch\' cannot be used with option \'--json\'', { code: 'commander.conflictingOption' })
}

/** `narvik help fetch` and `narvik --help fetch` are `narvik fetch --help`. */
export function withHelpLast([first, ...others]: readonly string[]): string[] {
  if (first === 'help' || first === '--help') return [...others, '--help']
  return first === undefined ? [] : [first, ...others]
}

/** Gives every command, at any depth, the settings of the program. */
function settle(parent: Command): void {
  for (const command of parent.commands) {
    command.copyInheritedSettings(parent).helpOption('--help', 'print this help')
    const examples = EXAMPLES[commandPath(command)]
    if (examples !== undefined) command.addHelpText('after', `\n${examples.length === 1 ? 'Example' : 'Examples'}:\n${examples.map(example => `  $ ${example}`).join('\n')}`)
    settle(command)
  }
}

/** `fleet create`: the words after `narvik`. */
function commandPath(command: Command): string {
  const { parent } = command
  return parent?.parent == null ? command.name() : `${commandPath(parent)} ${command.name()}`
}

/** A mistake on the command line as an error with a code; undefined where the exit is no mistake, as after `--help`. */
export function usageError({ code, message, exitCode }: CommanderError, program: Command, args: readonly string[]): NarvikError | undefined {
  if (exitCode === 0) return undefined
  const command = commandOf(program, args)
  const help = command === program ? 'narvik --help' : `narvik ${commandPath(command)} --help`
  if (code === 'commander.help') return new NarvikError('invalid-argument', 'Cannot take the command line: found no command, needed one', { hint: `See: ${help}` })
  const [said = '', suggestion] = message.replace(/^error: /, '').split('\n')
  const found = WORDING.reduce((text, [pattern, replacement]) => text.replace(pattern, replacement), said)
  const hint = suggestion === undefined ? `See: ${help}` : suggestion.replace(/^\((.*)\)$/, '$1')
  return new NarvikError('invalid-argument', `Cannot take the command line: found ${found}, needed what '${help}' says`, { hint })
}

/** The command that words lead to, as far as they do. */
function commandOf(program: Command, args: readonly string[]): Command {
  let command = program
  for (const [index, word] of args.entries()) {
    if (word.startsWith('-') || args[index - 1] === '--socket') continue
    const next = command.commands.find(child => child.name() === word)
    if (next === undefined) break
    command = next
  }
  return command
}

/** Makes Commander's own messages fit the sentence. */
const WORDING: readonly (readonly [RegExp, string])[] = [
  [/^unknown /, 'an unknown '],
  [/^required option '(\S+).*' not specified$/, 'no $1'],
  [/^missing required argument '(.*)'$/, 'no $1'],
  [/^option '(\S+).*' argument missing$/, 'no value for $1'],
  [/^option '(\S+)' cannot be used with option '(\S+)'$/, '$1 and $2 together'],
  [/^too many arguments .*$/, 'too many arguments'],
]

function addDaemon(program: Command, { daemon }: Runner): void {
  common(program.command('daemon'))
    .description('run the node in the foreground, until Ctrl-C')
    .option('--config <file>', 'read this configuration file')
    .option('--data-dir <dir>', 'keep the host\'s key, the catalog and the images there')
    .option('--listen <multiaddr>', 'listen there; may be repeated', collect)
    .option('--bootstrap <multiaddr>', 'dial this peer until it answers; may be repeated', collect)
    .option('--fleet-key <file>', 'speak only to hosts that hold the key in this file')
    .option('--no-mdns', 'do not look for peers on the LAN')
    .action((options: CommonOptions & ConfigFlags & { readonly config?: string, readonly fleetKey?: string }) => {
      const { json, config, fleetKey, mdns, ...flags } = options
      return daemon({
        ...(json === undefined ? {} : { json }),
        ...(config === undefined ? {} : { file: config }),
        // Without the flag Commander says true, which is no wish: the file may say otherwise.
        flags: { ...flags, ...(fleetKey === undefined ? {} : { fleetKeyFile: fleetKey }), ...(mdns === false ? { mdns } : {}) },
      })
    })
}

function addOnline(program: Command, { run }: Runner): void {
  common(program.command('import <PATH>')).description('prove a tree or store path, and announce it')
    .option('--name <name>', 'give the image this name')
    .option('--closure', 'with everything that the store path refers to')
    .option('--private', 'serve it to nobody')
    .action((path: string, options: CommonOptions & { name?: string, closure?: boolean, private?: boolean }) => run(online.importImage(path, options), options))
  common(program.command('fetch <REF>')).description('find, receive and prove an image; REF is a NAR hash, a store path or a name')
    .option('--name <name>', 'give the image this name')
    .option('--closure', 'with everything that the store path refers to')
    .option('--install', 'and register it in the Nix store of this host')
    .option('--timeout <seconds>', 'give up after this time', parseSeconds)
    .option('--priority <priority>', 'low, normal, high, or a number: higher ones are received first', parsePriority)
    .action((ref: string, options: CommonOptions & { name?: string, closure?: boolean, install?: boolean, timeout?: number, priority?: number }) => run(online.fetchImage(ref, options), options))
  common(program.command('list')).description('show the catalog')
    .option('--names', 'the published names, with who published them and when')
    .action((options: CommonOptions & { names?: boolean }) => run(options.names === true ? online.names() : online.list(), options))
  common(program.command('publish <REF>')).description('let a name stand for an image, for everybody who trusts the key')
    .requiredOption('--name <name>', 'the name')
    .requiredOption('--key <file>', 'the secret key, as Nix makes them; it is read here, and the daemon never sees it')
    .option('--valid <days>', 'how long the name is valid', parseDays, 90)
    .action((ref: string, options: CommonOptions & PublishOptions) => run(publish(ref, options), options))
  common(program.command('explain <REF>')).description('tell why an image is where it is, and where its bytes came from')
    .action((ref: string, options: CommonOptions) => run(online.explain(ref), options))
  common(program.command('show <REF>')).description('show an image with its journal and the evidence')
    .action((ref: string, options: CommonOptions) => run(online.show(ref), options))
  common(program.command('verify [REF]')).description('prove again what is on disk')
    .option('--all', 'every image')
    .option('--repair', 'bring what is damaged from other images of this host and from peers')
    .action((ref: string | undefined, options: CommonOptions & { all?: boolean, repair?: boolean }) => run(online.verify(ref, options), options))
  common(program.command('export <REF> <DEST>')).description('copy a verified tree out')
    .action((ref: string, dest: string, options: CommonOptions) => run(online.exportImage(ref, dest), options))
  common(program.command('install <REF>')).description('register a verified image in the Nix store of this host')
    .option('--closure', 'with everything that it refers to')
    .option('--no-check-sigs', 'also without a signature by a key that Nix trusts')
    .action((ref: string, options: CommonOptions & { checkSigs: boolean, closure?: boolean }) => run(online.install(ref, options), options))
  common(program.command('private <REF>')).description('serve an image to nobody')
    .option('--off', 'serve it like others again')
    .action((ref: string, options: CommonOptions & { off?: boolean }) => run(online.makePrivate(ref, options), options))
  common(program.command('rm <REF>')).description('remove an image from this host')
    .action((ref: string, options: CommonOptions) => run(online.remove(ref), options))
}

/** What decides what stays here, and what comes. */
function addSpace(program: Command, { run }: Runner): void {
  common(program.command('cancel <REF>')).description('give up a fetch, for all who wait for it')
    .action((ref: string, options: CommonOptions) => run(online.cancel(ref), options))
  common(program.command('pin <REF>')).description('keep an image, whatever room is needed')
    .action((ref: string, options: CommonOptions) => run(online.pin(ref), options))
  common(program.command('unpin <REF>')).description('let an image be collected again')
    .action((ref: string, options: CommonOptions) => run(online.unpin(ref), options))
  common(program.command('gc')).description('give room free: what has no name and is not needed, never a pinned image, never one of the last copies')
    .option('--free <bytes>', 'only until so much is free, such as 10GiB; then also images with a name', parseBytes)
    .option('--dry-run', 'only say what would go')
    .action((options: CommonOptions & { free?: number, dryRun?: boolean }) => run(online.gc(options), options))
  common(program.command('du')).description('show what takes how much room')
    .action((options: CommonOptions) => run(online.du(), options))
}

function addHost(program: Command, { run }: Runner): void {
  watchable(program.command('status')).description('show the node')
    .action((options: CommonOptions) => run(online.status(), options))
  watchable(program.command('peers')).description('show the peers')
    .option('--banned', 'those that are kept away for a time, and why')
    .action((options: CommonOptions & { banned?: boolean }) => run(options.banned === true ? online.bans() : online.peers(), options))
  common(program.command('unban <PEER>')).description('end the ban of a peer')
    .action((peer: string, options: CommonOptions) => run(online.unban(peer), options))
  watchable(program.command('transfers')).description('show what is being received and sent')
    .action((options: CommonOptions) => run(online.transfers(), options))
  common(program.command('doctor')).description('look at all that a daemon needs of this host, and say what to do')
    .action((options: CommonOptions) => run(doctor(process.env), options))
  common(program.command('metrics')).description('print the metrics as Prometheus reads them')
    .action((options: CommonOptions) => run(online.metrics(), options))
  common(program.command('events')).description('follow what happens, until Ctrl-C')
    .action((options: CommonOptions) => run(online.events(), options))
}

function addQueue(program: Command, { run }: Runner): void {
  const queue = common(program.command('queue')).description('the images that wait to be received').helpCommand(false)
  watchable(queue.command('show', { isDefault: true })).description('show what waits, the next one first')
    .action((options: CommonOptions) => run(online.queue(), options))
  common(queue.command('move <REF> <POSITION>')).description('let it be received earlier or later; 1 is the next')
    .action((ref: string, position: string, options: CommonOptions) => run(online.moveInQueue(ref, parsePosition(position)), options))
}

function addOffline(program: Command, { run }: Runner): void {
  common(program.command('hash <PATH>')).description('print the NAR hash of a tree; needs no daemon')
    .action((path: string, options: CommonOptions) => run(hash(path), options))
  common(program.command('dump <PATH>')).description('write the NAR of a tree to standard output; needs no daemon')
    .action((path: string, options: CommonOptions) => run(dump(path), options))
  common(program.command('restore <DEST>')).description('make a tree of the NAR on standard input; needs no daemon')
    .action((dest: string, options: CommonOptions) => run(restore(dest), options))
}

function addConfig(program: Command, { run }: Runner): void {
  const config = common(program.command('config')).description('the configuration; needs no daemon').helpCommand(false)
  common(config.command('check [FILE]')).description('say what is wrong with the configuration, and where each value comes from')
    .action((file: string | undefined, options: CommonOptions) => run(configCheck(file, process.env), options))
}

function addFleet(program: Command, { run }: Runner): void {
  const fleet = common(program.command('fleet')).description('the key that the hosts of a fleet share; needs no daemon').helpCommand(false)
  common(fleet.command('create <FILE>')).description('make a new key')
    .action((file: string, options: CommonOptions) => run(fleetCreate(file), options))
  common(fleet.command('show <FILE>')).description('print the fingerprint of a key, never the key')
    .action((file: string, options: CommonOptions) => run(fleetShow(file), options))
}

function addService(program: Command, { run }: Runner): void {
  const service = common(program.command('service')).description('the systemd service; needs no daemon').helpCommand(false)
  common(service.command('install')).description('put the unit in place and make its user')
    .option('--print', 'only print the unit')
    .option('--prefix <dir>', 'root of the system that it is put into')
    .action((options: CommonOptions & { print?: boolean, prefix?: string }) => run(installService(options), options))
}

/** Groups and the program take these too, so that they may stand before the command. */
function common(command: Command): Command {
  return command
    .option('--json', 'print one JSON document')
    .option('--socket <path>', 'the control socket of the daemon')
}

function watchable(command: Command): Command {
  return common(command).option('--watch', 'keep it on the screen; not with --json')
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

/** The priorities that have a name. */
const PRIORITIES: Readonly<Record<string, number>> = { low: -10, normal: 0, high: 10 }

function parsePriority(text: string): number {
  const named = Object.hasOwn(PRIORITIES, text) ? PRIORITIES[text] : undefined
  const priority = named ?? (/^-?\d{1,4}$/.test(text) ? Number(text) : NaN)
  if (Math.abs(priority) <= MAX_PRIORITY) return priority
  throw new NarvikError('invalid-argument', `Cannot take --priority: found ${JSON.stringify(text)}, needed low, normal, high, or a whole number from -${MAX_PRIORITY} to ${MAX_PRIORITY}`)
}

function parsePosition(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text)
  throw new NarvikError('invalid-argument', `Cannot take the position: found ${JSON.stringify(text)}, needed a whole number from 1, which is the next`)
}

function parseBytes(text: string): number {
  const bytes = parseByteSize(text)
  if (bytes !== undefined && bytes > 0) return bytes
  throw new NarvikError('invalid-argument', `Cannot take --free: found ${JSON.stringify(text)}, needed ${BYTE_SIZE_FORM}`)
}

function parseSeconds(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text) && Number(text) > 0) return Number(text)
  throw new NarvikError('invalid-argument', `Cannot take --timeout: found ${JSON.stringify(text)}, needed a number of seconds above 0`)
}

function parseDays(text: string): number {
  if (/^\d{1,3}$/.test(text) && Number(text) > 0 && Number(text) <= 400) return Number(text)
  throw new NarvikError('invalid-argument', `Cannot take --valid: found ${JSON.stringify(text)}, needed a number of days from 1 to 400`)
}
