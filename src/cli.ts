import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { styleText } from 'node:util'
import { CommanderError } from 'commander'
import { progressLine } from './cli/bar.ts'
import { harmless } from './cli/format.ts'
import type { Action, Answer } from './cli/outcome.ts'
import { createProgram, usageError, withHelpLast, type CommonOptions, type DaemonOptions } from './cli/program.ts'
import { ownName, version } from './cli/self.ts'
import { findSocket, howToStart } from './cli/socket.ts'
import { fields } from './cli/table.ts'
import { type Config, loadConfig } from './config.ts'
import type { Progress } from './control/api.ts'
import { ControlClient } from './control/client.ts'
import { ERROR_CODES, isNarvikError, messageOf, NarvikError, systemCode } from './errors.ts'
import { isJournal } from './log.ts'

/** The command line, and the only file that prints. */

const args = withHelpLast(process.argv.slice(2))
const { stdin, stdout, stderr, env } = process

async function main(): Promise<void> {
  const program = createProgram(version(), { run, daemon })
  try {
    await program.parseAsync(args, { from: 'user' })
  } catch (thrown) {
    const error = thrown instanceof CommanderError ? usageError(thrown, program, args) : thrown
    if (error !== undefined) fail(error)
  }
}

async function run(action: Action, { json = false, socket, watch = false }: CommonOptions): Promise<void> {
  const bar = new ProgressBar(!json && stderr.isTTY && env.TERM !== 'dumb')
  try {
    do {
      const outcome = await action({
        json,
        client: () => clientOf(findSocket(socket, env)),
        onProgress: progress => { bar.draw(progress) },
        stdin,
        stdoutIsTerminal: stdout.isTTY,
      })
      bar.clear()
      if ('stream' in outcome) await writeAll(outcome.stream)
      else if ('answers' in outcome) for await (const answer of outcome.answers) print(answer, { json })
      else print(outcome, { json, onCleanScreen: watch && stdout.isTTY })
      if (watch) await delay(1000)
    } while (watch)
  } finally {
    bar.clear()
  }
}

function clientOf(socket: string): ControlClient {
  return new ControlClient({ socket, howToStart: howToStart(socket) })
}

async function daemon({ json, file, flags }: DaemonOptions): Promise<void> {
  const load = (): Config => loadConfig({ ...(file === undefined ? {} : { file }), flags, env })
  const config = load()
  const { runDaemon } = await import('./daemon.ts')
  const exitCode = await runDaemon(config, {
    load,
    onReady: ({ peerId, addresses, socket, dataDir }) => {
      // A journal has the line that says so, in the form of all others, and nobody types there.
      if (json !== true && isJournal(env, stdout.fd)) return
      const next = `${ownName(env, process.cwd())} import PATH${findSocket(undefined, env) === socket ? '' : ` --socket ${socket}`}`
      const text = fields({ 'peer id': peerId, 'addresses': addresses.join(' '), 'socket': socket, 'data': dataDir }, styleText)
      print({ json: { peerId, addresses, socket, dataDir }, text: () => `${text}\n\nNext, in another terminal: ${next}` }, { json: json === true })
    },
  })
  process.exit(exitCode)
}

function print({ json: document, text, failure }: Answer, { json, onCleanScreen = false }: { readonly json: boolean, readonly onCleanScreen?: boolean }): void {
  const written = json ? JSON.stringify(document) : text((style, part) => styleText(style, part, { stream: stdout }))
  // In one piece: a screen that is cleared first and written later flickers.
  if (written !== '') stdout.write(`${onCleanScreen ? '\x1b[2J\x1b[H' : ''}${written}\n`)
  if (failure === undefined) return
  if (!json) printError(failure)
  process.exitCode = ERROR_CODES[failure.code].exit
}

function fail(thrown: unknown): void {
  const error = isNarvikError(thrown) ? thrown : new NarvikError('internal', `Cannot finish: found ${messageOf(thrown)}, needed no error`, { cause: thrown })
  const { code, message, hint = null } = error
  if (args.includes('--json')) stdout.write(`${JSON.stringify({ error: { code, message, hint } })}\n`)
  else printError(error)
  process.exitCode = ERROR_CODES[code].exit
}

function printError({ message, hint }: NarvikError): void {
  stderr.write(`${styleText('red', 'narvik:', { stream: stderr })} ${harmless(message)}\n`)
  if (hint !== undefined) stderr.write(`  hint: ${harmless(hint)}\n`)
}

async function writeAll(source: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of source) {
    if (!stdout.write(chunk)) await once(stdout, 'drain')
  }
}

/** A reader that closed its end has read enough; there is nobody left to tell. */
function leaveQuietly(error: Error): void {
  if (systemCode(error) === 'EPIPE') process.exit(1)
  throw error
}

/** One line on standard error that is drawn over and over, and wiped when the work is done. */
class ProgressBar {
  readonly #shown: boolean
  #drawnAt = 0
  #phase = ''

  constructor(shown: boolean) {
    this.#shown = shown
  }

  draw(progress: Progress): void {
    const now = performance.now()
    if (!this.#shown || (progress.phase === this.#phase && now - this.#drawnAt < 100)) return
    this.#drawnAt = now
    this.#phase = progress.phase
    // A terminal that doesn't know its width says 0.
    const columns = stderr.columns > 0 ? stderr.columns : 80
    stderr.write(`\r\x1b[K${progressLine(progress, columns - 1)}`)
  }

  clear(): void {
    if (this.#phase !== '') stderr.write('\r\x1b[K')
    this.#phase = ''
  }
}

for (const stream of [stdout, stderr]) stream.on('error', leaveQuietly)
await main()
