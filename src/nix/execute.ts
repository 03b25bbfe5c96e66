import type { ChildProcess } from 'node:child_process'
import type { Writable } from 'node:stream'
import { execa } from 'execa'
import { NarvikError } from '../errors.ts'
import { MAX_NIX_STDERR_BYTES } from '../limits.ts'
import { classifyMessage, NixError, whatNixSaid, type NixFailure } from './nix-error.ts'

export interface Abortable { readonly signal?: AbortSignal | undefined }

export interface RunOptions extends Abortable {
  readonly timeoutMs?: number | undefined
  /** Another program than `nix` beside it. */
  readonly program?: string
  /** Whether an exit code other than 0 is an answer. */
  readonly accepted?: (exitCode: number, said: string) => boolean
}

export interface Answer {
  readonly exitCode: number
  readonly stdout: string
  /** On standard error. */
  readonly said: string
}

/** A running `nix-daemon --stdio`. */
export interface StoreDaemon {
  readonly output: AsyncIterable<Uint8Array>
  /** Resolves when there is room for more; rejects once nobody reads any more. */
  write(...parts: Uint8Array[]): Promise<void>
  /**
   * Ends the process and answers with what it wrote to standard error; Nix drops what is under way.
   * @throws NixError `missing` where there never was a process.
   */
  stop(): Promise<string>
}

export function openPipes(program: string, args: readonly string[], { env, killDelayMs, signal }: Pick<Execution, 'env' | 'killDelayMs' | 'signal'>): StoreDaemon {
  const stop = new AbortController()
  const onAbort = (): void => { stop.abort(signal?.reason) }
  signal?.addEventListener('abort', onAbort)
  const subprocess = execa(program, args, {
    env, extendEnv: false, cwd: '/', stdin: 'pipe', encoding: 'buffer', reject: false,
    // What it sends is taken as it comes; of what it complains about, the end is kept.
    buffer: { stdout: false, stderr: true }, maxBuffer: { stderr: MAX_NIX_STDERR_BYTES },
    cancelSignal: stop.signal, killDescendants: true, forceKillAfterDelay: killDelayMs,
  })
  // A pipe that breaks is seen by whoever writes, and by the end of the output.
  subprocess.stdin.on('error', () => undefined)
  return {
    output: subprocess.stdout,
    write: async (...parts) => {
      let hasRoom = true
      for (const part of parts) hasRoom = subprocess.stdin.write(part)
      if (!hasRoom && subprocess.stdin.writable) await drained(subprocess.stdin)
      if (!subprocess.stdin.writable) throw new NarvikError('nix-failed', `Cannot write to ${program}: found its input closed, needed it open`)
    },
    stop: async () => {
      signal?.removeEventListener('abort', onAbort)
      subprocess.stdin.destroy()
      stop.abort()
      const { stderr } = await subprocess
      if (subprocess.pid === undefined) throw new NixError('missing', `Cannot write to the Nix store: found no program ${program} that can be run, needed it`)
      return whatNixSaid(Buffer.from(stderr).toString('utf8'))
    },
  }
}

/** Resolves when a stream takes more, or never will. */
export async function drained(stream: Writable): Promise<void> {
  const { promise, resolve: done } = Promise.withResolvers<undefined>()
  const wake = (): void => { done(undefined) }
  for (const event of ['drain', 'close', 'error']) stream.on(event, wake)
  await promise
  for (const event of ['drain', 'close', 'error']) stream.off(event, wake)
}

interface Execution extends RunOptions {
  readonly program: string
  readonly args: readonly string[]
  readonly accepted: (exitCode: number, said: string) => boolean
  /** As a person would say it. */
  readonly command: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly killDelayMs: number
  readonly maxOutputBytes: number
}

const GIVE_UP_MS = 1000

/** Runs a program in a process group of its own and returns what it wrote, however it behaves. */
export async function execute(execution: Execution): Promise<Answer> {
  const { program, args, env, killDelayMs, maxOutputBytes, timeoutMs, signal } = execution
  signal?.throwIfAborted()
  const stop = new AbortController()
  const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>()
  const subprocess = execa(program, args, {
    env,
    extendEnv: false,
    cwd: '/',
    stdin: 'ignore',
    encoding: 'buffer',
    stripFinalNewline: false,
    maxBuffer: maxOutputBytes,
    cancelSignal: stop.signal,
    killDescendants: true,
    forceKillAfterDelay: killDelayMs,
    reject: false,
  })
  const end = (reason: unknown): void => { stop.abort(reason) }
  const onAbort = (): void => { end(signal?.reason) }
  signal?.addEventListener('abort', onAbort)
  const timeout = timeoutMs === undefined ? undefined : setTimeout(() => { end(timedOut(execution)) }, timeoutMs)
  let grace: NodeJS.Timeout | undefined
  stop.signal.addEventListener('abort', () => {
    // A process that can not be killed, or one that left the group and keeps our pipe open, must not hold us up.
    grace = setTimeout(() => { giveUp(stop.signal.reason) }, killDelayMs + GIVE_UP_MS)
  })
  try {
    const result = await Promise.race([subprocess, givenUp])
    stop.signal.throwIfAborted()
    return answerOf(result, execution)
  } finally {
    signal?.removeEventListener('abort', onAbort)
    clearTimeout(timeout)
    clearTimeout(grace)
    if (stop.signal.aborted) abandon(subprocess.nodeChildProcess)
  }
}

function timedOut({ command, timeoutMs }: Execution): NixError {
  return new NixError('timed-out', `Cannot run ${command}: found no answer after ${timeoutMs ?? 0} ms, needed one`)
}

/** What is used of execa's result. */
interface ExecutionResult {
  readonly isMaxBuffer: boolean
  /** Of a system error, for instance when the program could not be started. */
  readonly code?: string | undefined
  readonly signal?: string | undefined
  readonly exitCode?: number | undefined
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
  readonly cause?: unknown
}

function answerOf(result: ExecutionResult, { command, program, maxOutputBytes, accepted }: Execution): Answer {
  const fail = (kind: NixFailure, found: string, needed: string): NixError => new NixError(kind, `Cannot run ${command}: found ${found}, needed ${needed}`, { cause: result.cause })
  if (result.isMaxBuffer) throw fail('bad-output', `more than ${maxOutputBytes} bytes of output`, 'less')
  if (result.code === 'ENOENT') throw fail('missing', `no program ${program}`, 'Nix')
  if (result.code === 'EACCES') throw fail('permission', `that ${program} may not be run`, 'the right to run it')
  if (result.code !== undefined) throw fail('failed', `the system error ${result.code}`, `to start ${program}`)
  const said = whatNixSaid(Buffer.from(result.stderr).toString('utf8'))
  if (result.signal !== undefined) throw fail('killed', `that ${result.signal} ended it (it said: ${said})`, 'an answer')
  const exitCode = result.exitCode ?? -1
  if (exitCode !== 0 && !accepted(exitCode, said)) throw fail(classifyMessage(said), `exit code ${result.exitCode ?? 'unknown'} and ${said}`, 'an answer')
  try {
    return { exitCode, said, stdout: new TextDecoder('utf-8', { fatal: true }).decode(result.stdout) }
  } catch {
    throw fail('bad-output', 'bytes that are not UTF-8', 'text')
  }
}

/** Lets go of a process that was told to end, and ends what it left behind in its group. */
function abandon(child: ChildProcess): void {
  child.stdout?.destroy()
  child.stderr?.destroy()
  child.unref()
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // The whole group is gone, as it should be.
  }
}
