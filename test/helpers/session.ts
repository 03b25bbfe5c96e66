import { spawn } from 'node:child_process'
import { join } from 'node:path'

/** One command of a session script, with what it should print and how it should end. */
export interface Step {
  readonly command: string
  readonly stdout: string
  readonly stderr: string
  readonly exit: number
}

/**
 * Reads a session: `$ command`, then the lines that it prints (those on standard error after `2> `), then `[exit N]` where N isn't 0.
 * Lines before the first command, those that start with `#`, and blank ones at the end of what is printed are for the reader.
 */
export function parseSession(text: string): Step[] {
  const steps: Step[] = []
  for (const block of text.split(/^\$ /m).slice(1)) {
    const [command = '', ...lines] = block.split('\n').filter(line => !line.startsWith('#'))
    const exit = lines.map(line => /^\[exit (\d+)\]$/.exec(line)?.[1]).find(code => code !== undefined)
    const printed = lines.join('\n').trimEnd().split('\n').filter(line => !/^\[exit \d+\]$/.test(line))
    steps.push({
      command,
      stdout: printed.filter(line => !line.startsWith('2> ')).join('\n').trimEnd(),
      stderr: printed.filter(line => line.startsWith('2> ')).map(line => line.slice(3)).join('\n'),
      exit: Number(exit ?? 0),
    })
  }
  return steps
}

/** Runs one command of a session in a shell that finds `narvik` of this checkout. */
export function runStep(command: string, { cwd, env = {} }: { readonly cwd: string, readonly env?: NodeJS.ProcessEnv }): Promise<Step> {
  return new Promise((resolve, reject) => {
    const path = `${join(process.cwd(), 'bin')}:${process.env.PATH ?? ''}`
    const child = spawn('bash', ['-c', command], { cwd, env: { PATH: path, HOME: cwd, TZ: 'UTC', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => { stdout += part })
    child.stderr.setEncoding('utf8').on('data', (part: string) => { stderr += part })
    child.once('error', reject)
    child.once('close', code => { resolve({ command, stdout: stdout.trimEnd(), stderr: stderr.trimEnd(), exit: code ?? -1 }) })
  })
}
