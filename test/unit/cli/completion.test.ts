import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { completion } from '../../../src/cli/completion.ts'
import { EXAMPLES } from '../../../src/cli/examples.ts'
import { createProgram } from '../../../src/cli/program.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const unused = (): Promise<void> => Promise.resolve()
const program = createProgram('0', { run: unused, daemon: unused })

async function scriptFor(shell: string): Promise<string> {
  const outcome = await completion(shell, program)({ json: true, client: () => { throw new Error('needs no daemon') }, onProgress: () => undefined, stdin: process.stdin, stdoutIsTerminal: false })
  return (outcome as { json: { script: string } }).json.script
}

test('bash completes commands, commands within commands and options', async () => {
  const file = join(await temporaryDirectory(), 'narvik.bash')
  await writeFile(file, await scriptFor('bash'))
  const complete = (...words: string[]): string[] => execFileSync('bash', ['-c', `source ${file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _narvik; echo "\${COMPREPLY[@]}"`, 'bash', 'narvik', ...words], { encoding: 'utf8' }).trim().split(' ')
  expect(complete('trans')).toEqual(['transfers'])
  expect(complete('fleet', '')).toEqual(expect.arrayContaining(['create', 'show']))
  expect(complete('fetch', 'web-1', '--time')).toEqual(['--timeout'])
  expect(complete('config', 'check', '--js')).toEqual(['--json'])
  expect(complete('nothing-like-it')).toEqual([''])
})

test('every command is in every shell\'s script', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const script = await scriptFor(shell)
    for (const command of program.commands) expect(script, `${shell}: ${command.name()}`).toContain(command.name())
  }
  expect(() => completion('tcsh', program)).toThrow(/found "tcsh", needed bash, zsh, fish/)
})

test('every example is a command line that is understood', async () => {
  for (const example of Object.values(EXAMPLES).flat()) {
    const [, line = ''] = /narvik ([^|<>]*)/.exec(example) ?? []
    const fresh = createProgram('0', { run: unused, daemon: unused })
    await fresh.parseAsync(line.trim().split(' '), { from: 'user' })
  }
  expect(Object.keys(EXAMPLES).length).toBeGreaterThan(10)
})
